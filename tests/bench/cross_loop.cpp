// Accounts on cross margin in blocks, as a plain loop: the peer of tests/bench/test_cross_accounts.py.
//
// A path at a time, a step at a time: every block is tested against the radius up to which nobody in it can be reached;
// where a price has left it, every account of the block is tested against its margin, those at or below are closed
// whole at the mark, and the radius is taken anew. Prints the seconds of that, then the accounts closed on each path.
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

int main(int, char** argv) {
    std::FILE* file = std::fopen(argv[1], "rb");
    int32_t h[6];
    if (!file || std::fread(h, sizeof(int32_t), 6, file) != 6 || h[1] != A || h[2] != B) return 2;
    const int K = h[0], J = h[3], steps = h[4], paths = h[5];
    const auto quantity = numbers(file, size_t(K) * A * B), equity = numbers(file, size_t(K) * B),
               count = numbers(file, size_t(K) * B), floor = numbers(file, A * J), rate = numbers(file, A * J),
               deduction = numbers(file, A * J), log = numbers(file, size_t(paths) * steps * A);
    std::vector<long> closed(paths);
    std::vector<float> alive(size_t(K) * B), anchor(size_t(A) * K), radius(K);
    std::vector<uint8_t> out(K);
    const float far = std::exp(REACH);
    const auto began = std::chrono::steady_clock::now();
    for (int p = 0; p < paths; ++p) {
        for (size_t i = 0; i < alive.size(); ++i) alive[i] = count[i] > 0;
        std::fill(radius.begin(), radius.end(), -1.0f);
        std::fill(anchor.begin(), anchor.end(), 0.0f);
        for (int s = 0; s < steps; ++s) {
            const float* x = &log[(size_t(p) * steps + s) * A];
            float move[A];
            for (int a = 0; a < A; ++a) move[a] = std::expm1(x[a]);
            for (int k = 0; k < K; ++k) {
                float moved = 0;
                for (int a = 0; a < A; ++a) moved = std::max(moved, std::fabs(x[a] - anchor[size_t(a) * K + k]));
                out[k] = moved > radius[k];
            }
            for (int k = 0; k < K; ++k) {
                if (!out[k]) continue;
                const float* q = &quantity[size_t(k) * A * B];
                float *live = &alive[size_t(k) * B], have[B], need[B], speed[B];
                for (int b = 0; b < B; ++b) have[b] = need[b] = speed[b] = 0;
                for (int a = 0; a < A; ++a) {
                    const float *f = &floor[a * J], *r = &rate[a * J], *d = &deduction[a * J];
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
                    for (int b = 0; b < B; ++b)
                        speed[b] += std::fabs(q[a * B + b]) * (1 + move[a]) * (1 + slope[b]);
                }
                float least = 1e30f;
                int gone = 0;
                for (int b = 0; b < B; ++b) {
                    const float spare = equity[size_t(k) * B + b] + have[b] - need[b];
                    const bool hit = live[b] > 0 && spare <= 0;
                    gone += hit;
                    live[b] = hit ? 0 : live[b];
                    const float ratio = std::max(spare, 0.0f) / std::max(speed[b], 1e-30f);
                    least = live[b] > 0 ? std::min(least, ratio) : least;
                }
                closed[p] += gone;
                radius[k] = least > 1e29f ? 1e3f : std::min(std::log1p(least), REACH);
                for (int a = 0; a < A; ++a) anchor[size_t(a) * K + k] = x[a];
            }
        }
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    std::printf("%.6f", took.count());
    for (long n : closed) std::printf(" %ld", n);
    std::printf("\n");
}
