// Accounts on cross margin in blocks, as a plain loop: the peer of tests/bench/test_cross_accounts.py.
//
// A path at a time, a step at a time: every block is tested against the radius up to which nobody in it can be reached,
// in the pace of each price and only where a move is against anybody; where a price has left it, every account of the
// block is tested against its margin, those at or below are closed whole at the mark, and the radius is taken anew. The
// radii at the start are worked out once, for all paths. Prints the seconds of that, then the accounts closed on each.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

constexpr int A = 6, B = 64;
constexpr float REACH = 0.25f;

static std::vector<float> numbers(std::FILE* file, size_t n) {
    std::vector<float> x(n);
    if (std::fread(x.data(), sizeof(float), n, file) != n) std::exit(2);
    return x;
}

struct Book {
    int K, J;
    std::vector<float> quantity, equity, count, floor, rate, deduction, pace, falls, rises;
};

// Close who is at the trigger in a block, and take its radius anew.
static int look(const Book& book, int k, const float* move, float* live, float& radius) {
    const float far = std::exp(REACH), *q = &book.quantity[size_t(k) * A * B];
    float have[B], need[B], speed[B];
    for (int b = 0; b < B; ++b) have[b] = need[b] = speed[b] = 0;
    for (int a = 0; a < A; ++a) {
        const int J = book.J;
        const float *f = &book.floor[a * J], *r = &book.rate[a * J], *d = &book.deduction[a * J];
        for (int b = 0; b < B; ++b) have[b] += q[a * B + b] * move[a];
        float kept[B], slope[B];
        for (int b = 0; b < B; ++b) kept[b] = 0, slope[b] = r[0];
        for (int j = 0; j < J; ++j)
            for (int b = 0; b < B; ++b) {
                const float usd = std::fabs(q[a * B + b]) * (1 + move[a]);
                kept[b] = std::max(kept[b], r[j] * usd - d[j]);
                slope[b] = usd * far > f[j] ? r[j] : slope[b];
            }
        for (int b = 0; b < B; ++b) need[b] += kept[b];
        for (int b = 0; b < B; ++b) {
            const float usd = std::fabs(q[a * B + b]) * (1 + move[a]);
            speed[b] += book.pace[a] * usd * (q[a * B + b] < 0 ? 1 + slope[b] : 1);
        }
    }
    float least = 1e30f;
    int gone = 0;
    for (int b = 0; b < B; ++b) {
        const float spare = book.equity[size_t(k) * B + b] + have[b] - need[b];
        const bool hit = live[b] > 0 && spare <= 0;
        gone += hit;
        live[b] = hit ? 0 : live[b];
        const float ratio = std::max(spare, 0.0f) / std::max(speed[b], 1e-30f);
        least = live[b] > 0 ? std::min(least, ratio) : least;
    }
    radius = least > 1e29f ? 1e3f : std::min(std::log1p(least), REACH);
    return gone;
}

int main(int, char** argv) {
    std::FILE* file = std::fopen(argv[1], "rb");
    int32_t h[6];
    if (!file || std::fread(h, sizeof(int32_t), 6, file) != 6 || h[1] != A || h[2] != B) return 2;
    const int K = h[0], J = h[3], steps = h[4], paths = h[5];
    const size_t n = size_t(K) * B;
    const Book book{K, J, numbers(file, n * A), numbers(file, n), numbers(file, n), numbers(file, A * J),
                    numbers(file, A * J), numbers(file, A * J), numbers(file, A), numbers(file, size_t(A) * K),
                    numbers(file, size_t(A) * K)};
    const auto log = numbers(file, size_t(paths) * steps * A);
    std::vector<long> closed(paths);
    std::vector<float> alive(n), first(K), radius(K), moved(K), anchor(size_t(A) * K);
    std::vector<uint8_t> out(K);
    const auto began = std::chrono::steady_clock::now();
    const float still[A] = {};
    for (size_t i = 0; i < n; ++i) alive[i] = book.count[i] > 0;
    for (int k = 0; k < K; ++k) look(book, k, still, &alive[size_t(k) * B], first[k]);
    for (int p = 0; p < paths; ++p) {
        for (size_t i = 0; i < n; ++i) alive[i] = book.count[i] > 0;
        radius = first;
        std::fill(anchor.begin(), anchor.end(), 0.0f);
        for (int s = 0; s < steps; ++s) {
            const float* x = &log[(size_t(p) * steps + s) * A];
            float move[A];
            for (int a = 0; a < A; ++a) move[a] = std::expm1(x[a]);
            std::fill(moved.begin(), moved.end(), 0.0f);
            for (int a = 0; a < A; ++a) {
                const float *at = &anchor[size_t(a) * K], *up = &book.rises[size_t(a) * K],
                            *down = &book.falls[size_t(a) * K], now = x[a];
                float* far = moved.data();
                for (int k = 0; k < K; ++k) {
                    const float rise = up[k] * (now - at[k]), fall = down[k] * (at[k] - now);
                    const float more = rise > fall ? rise : fall;
                    far[k] = far[k] > more ? far[k] : more;
                }
            }
            for (int k = 0; k < K; ++k) out[k] = moved[k] > radius[k];
            for (int k = 0; k < K; ++k) {
                if (!out[k]) continue;
                closed[p] += look(book, k, move, &alive[size_t(k) * B], radius[k]);
                for (int a = 0; a < A; ++a) anchor[size_t(a) * K + k] = x[a];
            }
        }
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    std::printf("%.6f", took.count());
    for (long n : closed) std::printf(" %ld", n);
    std::printf("\n");
}
