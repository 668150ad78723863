// The time step for positions on ladders, written by hand: the yardstick of stress/bench.py.
//
// A block of paths at a time, one path a lane. In a step all markets of all paths are quoted, which takes no power:
// between two orders a push decays by a constant factor. A path's next trigger is kept as a log price, beyond empty
// rungs, so that the test is one comparison a side. What passes it goes to one list a side, of all markets, so that
// vectors are full where events are rare; only lists go through look-ups, book, settlement and new quotes, round after
// round. Prints the seconds, input and output not counted, and writes hourly sums of every market and path.
//
// Left out, as the scenario never needs it: funding, queue, auction, takeover, deleveraging, empty pools, the ledger,
// extremes of prices and funds, numbers of accounts.
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "native_vectors.hpp"

#ifndef VENUES
#define VENUES 3
#endif
#ifndef ASSETS
#define ASSETS 5
#endif
#ifndef ENTRIES
#define ENTRIES 1
#endif
#ifndef BLOCK
#define BLOCK 512
#endif

constexpr int V = VENUES, A = ASSETS, E = ENTRIES, M = V * A, B = BLOCK, C = 6, COLUMNS = 16;
constexpr int WIDTH = B + L;  // lanes from B on are nobody's: lists are filled up with them
static_assert(B % L == 0 && M <= 2 * L, "whole vectors; markets fit a table");
enum Rule { MEDIAN, INDEX_AVERAGE, LAST, INDEX };

struct Parameters {
    int paths, steps, steps_per_hour, rounds, rungs, cells, window, lag;
    float delta, rho, decay_local, decay_global, index_weight, spread, deep;
    float coefficient[A], contagion[A][A], sigma[A], shift[A], adv[M], adv_global[A], bound[M];
    float fee[V], log_margin[M][2][C];
    int32_t keeps[V], mark[V], average[V], partial[M][2][C];
    bool contagious;
    std::vector<float> rows;  // ladder, rung, column
    std::vector<float> next;  // ladder without entry class, rung: log mark at which more than that is triggered
};

static void read(std::FILE* file, void* x, size_t bytes) {
    if (std::fread(x, 1, bytes, file) != bytes) std::exit(2);
}
template <class T> static void read(std::FILE* file, T& x) { read(file, &x, sizeof(x)); }

static const float* table(const Parameters& P, int m, int s, int e) {
    return &P.rows[(size_t(m * 2 + s) * E + e) * P.rungs * COLUMNS];
}

// Log marks at which the next rung that holds anything is reached, a little before it: the list tests exactly.
static void find_next(Parameters& P) {
    const int rungs = P.rungs;
    P.next.assign(size_t(M) * 2 * rungs, 0.0f);
    for (int m = 0; m < M; ++m)
        for (int s = 0; s < 2; ++s) {
            float* next = &P.next[size_t(m * 2 + s) * rungs];
            const double sign = s ? -1 : 1;
            double depth = 1e9;
            for (int r = rungs - 1; r >= 0; --r) {
                bool more = false;
                for (int e = 0; e < E && r + 1 < rungs; ++e) {
                    const float *here = table(P, m, s, e) + size_t(r) * COLUMNS, *after = here + COLUMNS;
                    for (int c = 0; c < 2 * C; c += 2) more = more || after[c] > here[c];
                }
                const double cell = r + 0.5;
                if (more && r + 1 <= P.cells)
                    depth = (cell < P.cells ? P.spread * cell / (P.cells - cell) : 1e9) * (1 - 1e-6) - P.shift[m % A];
                next[r] = float(-sign * depth);
            }
        }
}

struct Sums {
    std::vector<float> volume, remainder, deficit, surplus;  // hour, market, path
};

// A number of every market, looked up by market with one permutation.
struct Table {
    alignas(64) float x[2 * L] = {};
    F at(I m) const { return look_up(x, m); }
    template <class T> void fill(int m, T value) { x[m] = float(value); }
};

// What a list's look-ups need of each market.
struct Markets {
    Table venue, asset, shift, per_adv, per_adv_global, coefficient, bound[2], fee, keeps, margin[2][C], partial[2][C];
    explicit Markets(const Parameters& P) {
        for (int m = 0; m < M; ++m) {
            const int v = m / A, a = m % A;
            venue.fill(m, v), asset.fill(m, a), shift.fill(m, P.shift[a]), fee.fill(m, P.fee[v]);
            per_adv.fill(m, 1 / P.adv[m]), per_adv_global.fill(m, 1 / P.adv_global[a]);
            coefficient.fill(m, P.coefficient[a]), keeps.fill(m, P.keeps[v] != 0);
            for (int s = 0; s < 2; ++s) {
                bound[s].fill(m, std::log1p((s ? 1 : -1) * P.bound[m]));
                for (int c = 0; c < C; ++c)
                    margin[s][c].fill(m, P.log_margin[m][s][c]), partial[s][c].fill(m, P.partial[m][s][c] != 0);
            }
        }
    }
};

// A block of paths, and what is carried through it. Arrays end with lanes that are nobody's.
struct Block {
    using OfMarkets = float[M][WIDTH];
    using OfAssets = float[A][WIDTH];
    alignas(64) OfMarkets u_local, basis, total, mark, flow, next[2], volume, remainder, deficit, surplus;
    alignas(64) OfAssets u_global, push, index, depth;
    alignas(64) int32_t reach[2][M][WIDTH];
    alignas(64) int32_t list[2][M * WIDTH + L];  // market x WIDTH + lane of what is triggered, by side
    alignas(64) int32_t moved[A][WIDTH + L];     // lanes with any of that, by asset; all under 0 where one moves all
    int listed[2], moves[A];
    const Parameters& P;
    const Markets of;
    const float* prices;
    std::vector<float> ring;
    const float *now, *before;  // log prices of this step and of five minutes ago, from the block's first path on
    float inverse[V];           // of the samples in the average
    int lanes, first;

    Block(const Parameters& p, const float* log) : P(p), of(p), prices(log), ring(size_t(p.window) * M * B) {}

    void open(int path, int n) {
        first = path, lanes = n;
        for (auto* x : {&u_local, &basis, &total, &mark, &flow, &volume, &remainder, &deficit, &surplus})
            std::memset(x, 0, sizeof(*x));
        for (auto* x : {&u_global, &push, &index, &depth}) std::memset(x, 0, sizeof(*x));
        std::memset(reach, 0, sizeof(reach)), std::memset(moves, 0, sizeof(moves));
        listed[0] = listed[1] = 0;
        std::fill(ring.begin(), ring.end(), 0.0f);
        for (int m = 0; m < M; ++m)
            for (int s = 0; s < 2; ++s) std::fill_n(next[s][m], WIDTH, P.next[size_t(m * 2 + s) * P.rungs]);
    }

    F quote(int v, F level, F here, F average) const {
        const F median = larger(smaller(average, here), smaller(larger(average, here), F{}));
        switch (P.mark[v]) {
            case LAST: return level + here;
            case INDEX_AVERAGE: return level + average;
            case INDEX: return level;
            default: return level + median;
        }
    }

    F index_of(int a, const F* own, F exogenous) const {
        F pushed = own[a];
        if (P.contagious)
            for (int b = 0; b < A; ++b) pushed += P.contagion[a][b] * own[b];
        return exogenous + P.index_weight * pushed;
    }

    void add(int side, I key, unsigned chosen) {
        if (chosen) listed[side] += put(&list[side][listed[side]], key, chosen);
    }
    void move(int a, I lane, unsigned chosen) {
        if (chosen) moves[a] += put(&moved[a][moves[a]], lane, chosen);
    }

    // Lanes beyond a block's paths, of a list's end, read the last one's prices.
    F price_at(const float* step, int a, I lane) const {
        return gather(step + size_t(a) * P.paths, where(lane < lanes, lane, I{} + (lanes - 1)));
    }

    // All paths and markets: imbalances decay, bases go into the average, prices are quoted and tested.
    void quote_all(int k) {
        const float fall = std::pow(P.decay_local, P.delta), fall_global = std::pow(P.decay_global, P.delta);
        for (int v = 0; v < V; ++v) inverse[v] = 1.0f / std::min(k + 1, int(P.average[v]));
        for (int i = 0; i < lanes; i += L) {
            F own[A];
            unsigned any = 0;
            for (int a = 0; a < A; ++a) {
                const F p = load(&push[a][i]) * fall_global;
                store(&push[a][i], p);
                store(&u_global[a][i], load(&u_global[a][i]) * P.decay_global);
                own[a] = P.rho * p;
            }
            for (int a = 0; a < A; ++a) {
                const F level = index_of(a, own, load(&now[size_t(a) * P.paths + i]));
                unsigned here = 0;
                store(&index[a][i], level);
                for (int v = 0; v < V; ++v) {
                    const int m = v * A + a;
                    const F b = load(&basis[m][i]) * fall;
                    F sum = load(&total[m][i]) + b;
                    if (k >= P.average[v]) sum -= load(&ring[(size_t((k - P.average[v]) % P.window) * M + m) * B + i]);
                    store(&ring[(size_t(k % P.window) * M + m) * B + i], b);
                    store(&basis[m][i], b), store(&total[m][i], sum);
                    store(&u_local[m][i], load(&u_local[m][i]) * P.decay_local);
                    const F at = quote(v, level, b, sum * inverse[v]);
                    store(&mark[m][i], at);
                    const unsigned down = bits(at <= load(&next[0][m][i])), up = bits(at >= load(&next[1][m][i]));
                    here |= down | up;
                    add(0, IOTA + (m * WIDTH + i), down), add(1, IOTA + (m * WIDTH + i), up);
                }
                any |= here;
                if (!P.contagious) move(a, IOTA + i, here);
            }
            if (P.contagious) move(0, IOTA + i, any);
        }
    }

    // How much thinner the books are, where anything is triggered.
    void thin(int a, I lane) {
        F fall = price_at(now, a, lane);
        if (before) fall -= price_at(before, a, lane);
        const F z = magnitude(fall) * (std::sqrt(288.0f) / (11.8f * P.sigma[a]));
        scatter(depth[a], lane, P.deep > 0 ? smaller(1 + power(z, 1.75f), all(20.0f)) : all(1.0f));
    }

    I position(F at) const {
        at = larger(at, F{});
        const F cell = float(P.cells) * (at / (P.spread + at));
        return whole(smaller(cell + 0.5f, all(float(P.cells))));
    }
    F depth_of(F cell) const { return P.spread * cell / (float(P.cells) - cell); }

    // Mean of |u|^delta with its sign over [u, u + du], given that at u and at u + du.
    F mean_push(F u, F du, F start, F end) const {
        const I small = (magnitude(du) < 0.03f * magnitude(u)) | (du == 0);
        const F middle = u + du / 2, at = signed_as(power(magnitude(middle), P.delta), middle);
        const F swept = magnitude(u + du) * magnitude(end) - magnitude(u) * magnitude(start);
        return where(small, at, swept / ((P.delta + 1) * where(small, all(1.0f), du)));
    }

    // Close what a vector of paths and markets has triggered on one side.
    template <int s> void close(I key) {
        constexpr float sign = s ? -1 : 1;
        const I m = whole((number(key) + 0.5f) * (1.0f / WIDTH));
        const I of_asset = key + (whole(of.asset.at(m)) - m) * WIDTH;
        const F at = gather(mark[0], key);
        const I low = gather(reach[s][0], key), there = position(-sign * at + of.shift.at(m));
        const I high = where(there > low, there, low);
        scatter(reach[s][0], key, high);
        scatter(next[s][0], key, gather(P.next.data(), (m * 2 + s) * P.rungs + high));

        const I ladder = (m * 2 + s) * (E * P.rungs);
        F quantity[E][C], value[E][C], coins{};
        for (int e = 0; e < E; ++e) {
            alignas(64) int32_t from[L], to[L];
            store(from, (ladder + e * P.rungs + low) * COLUMNS), store(to, (ladder + e * P.rungs + high) * COLUMNS);
            F row[L];
            for (int l = 0; l < L; ++l) row[l] = load(&P.rows[to[l]]) - load(&P.rows[from[l]]);
            transpose(row);
            for (int c = 0; c < C; ++c) quantity[e][c] = row[2 * c], value[e][c] = row[2 * c + 1], coins += row[2 * c];
        }

        // The book, along the curve from the round's opening, at most to the take bound.
        const F mark_move = expm1_of(at), wanted = coins * (1 + mark_move), g = gather(depth[0], of_asset);
        const F ul = gather(u_local[0], key), ug = gather(u_global[0], of_asset), coefficient = of.coefficient.at(m);
        const F per_local = g * of.per_adv.at(m), per_global = g * of.per_adv_global.at(m);
        const F local = (1 - P.rho) * coefficient, everywhere = P.index_weight * P.rho * coefficient;
        const F start_local = gather(basis[0], key) / local, start_global = gather(push[0], of_asset) / coefficient;
        const F base = gather(index[0], of_asset) - everywhere * start_global;
        const F limit = at + of.bound[s].at(m);
        F end_local, end_global;
        const auto beyond = [&](F usd) {
            const F after_local = ul - sign * usd * per_local, after_global = ug - sign * usd * per_global;
            end_local = signed_as(power(magnitude(after_local), P.delta), after_local);
            end_global = signed_as(power(magnitude(after_global), P.delta), after_global);
            return sign * (base + everywhere * end_global + local * end_local - limit) < 0;
        };
        F usd = wanted;
        const I too_much = beyond(wanted) & (wanted > 0);
        if (bits(too_much)) {
            F under{}, over = wanted;
            for (int i = 0; i < 24; ++i) {
                const F middle = 0.5f * (under + over);
                const I out = beyond(middle);
                over = where(out, middle, over), under = where(out, under, middle);
            }
            usd = where(too_much, under, wanted);
            beyond(usd);
            scatter(remainder[0], key, gather(remainder[0], key) + wanted - usd);
        }
        const F pressed = -sign * usd;
        const F price = base + everywhere * mean_push(ug, pressed * per_global, start_global, end_global) +
                        local * mean_push(ul, pressed * per_local, start_local, end_local);

        // Settlement. Accounts come by bankruptcy price: bankrupt, short of the fee, whole, class by class.
        const I some = wanted > 0;
        const F book = where(some, usd / where(some, wanted, all(1.0f)), F{}), book_move = expm1_of(price);
        const F level = where(some, book * book_move + (1 - book) * mark_move, F{});
        const F fee = of.fee.at(m) * book * (1 + book_move), paid = level - sign * fee;
        const F zero = -sign * log_of(larger(1 + level, all(1e-3f)));
        const F full = -sign * log_of(larger(1 + paid, all(1e-3f)));
        const F past_low = depth_of(number(low) + 0.5f);
        const F past_high = depth_of(number(high) - 0.5f);
        F lack{}, fees{}, spare{};
        for (int c = 0; c < C; ++c) {
            const F margin = of.margin[s][c].at(m), to_zero = zero + sign * margin, to_full = full + sign * margin;
            const I partial = of.partial[s][c].at(m) != 0;
            if (!bits(to_full >= past_low)) {
                for (int e = 0; e < E; ++e) {
                    const F due = fee * quantity[e][c];
                    fees += due;
                    spare += where(partial, F{}, larger(sign * (quantity[e][c] * level - value[e][c]) - due, F{}));
                }
                continue;
            }
            for (int e = 0; e < E; ++e) {
                // What the class holds up to a depth, of all it holds; inside the sweep its table says.
                const auto up_to = [&](F depth, F& q, F& x) {
                    const I every = depth >= past_high, inside = (depth >= past_low) & ~every;
                    q = where(every, quantity[e][c], F{}), x = where(every, value[e][c], F{});
                    if (!bits(inside)) return;
                    I place = position(depth);
                    place = where(place < low, low, place), place = where(place > high, high, place);
                    const float* t = P.rows.data() + 2 * c;
                    const I start = (ladder + e * P.rungs + low) * COLUMNS, stop = start + (place - low) * COLUMNS;
                    q = where(inside, gather(t, stop) - gather(t, start), q);
                    x = where(inside, gather(t + 1, stop) - gather(t + 1, start), x);
                };
                F q0, x0, q1, x1;
                up_to(to_zero, q0, x0), up_to(to_full, q1, x1);
                lack += larger(-sign * (q0 * level - x0), F{});
                const F q = quantity[e][c] - q1, x = value[e][c] - x1, due = fee * q;
                const F rest = larger(sign * ((q1 - q0) * level - (x1 - x0)), F{});
                fees += where(partial, fee * (quantity[e][c] - q0), due + rest);
                spare += where(partial, F{}, larger(sign * (q * level - x) - due, F{}));
            }
        }
        scatter(volume[0], key, gather(volume[0], key) + wanted);
        if (bits(lack > 0)) scatter(deficit[0], key, gather(deficit[0], key) + lack);
        scatter(surplus[0], key, gather(surplus[0], key) + fees + of.keeps.at(m) * spare);
        scatter(flow[0], key, gather(flow[0], key) + pressed * g);
    }

    // Orders move the imbalances of an asset.
    void press(int a, I lane) {
        F everywhere{};
        for (int v = 0; v < V; ++v) {
            const int m = v * A + a;
            const F here = gather(flow[m], lane);
            if (!bits(here != 0)) continue;
            everywhere += here;
            const F ul = gather(u_local[m], lane) + here / P.adv[m];
            scatter(flow[m], lane, F{});
            scatter(u_local[m], lane, ul);
            scatter(basis[m], lane, signed_as((1 - P.rho) * P.coefficient[a] * power(magnitude(ul), P.delta), ul));
        }
        if (!bits(everywhere != 0)) return;
        const F ug = gather(u_global[a], lane) + everywhere / P.adv_global[a];
        scatter(u_global[a], lane, ug);
        scatter(push[a], lane, signed_as(P.coefficient[a] * power(magnitude(ug), P.delta), ug));
    }

    // New quotes of an asset, and whom they trigger.
    unsigned quote_again(int a, I lane) {
        F own[A];
        for (int b = 0; b < A; ++b)
            if (b == a || P.contagious) own[b] = P.rho * gather(push[b], lane);
        const F level = index_of(a, own, price_at(now, a, lane));
        const unsigned there = bits(lane < lanes);
        unsigned any = 0;
        scatter(index[a], lane, level);
        for (int v = 0; v < V; ++v) {
            const int m = v * A + a;
            const F at = quote(v, level, gather(basis[m], lane), gather(total[m], lane) * inverse[v]);
            scatter(mark[m], lane, at);
            const unsigned down = bits(at <= gather(next[0][m], lane)) & there;
            const unsigned up = bits(at >= gather(next[1][m], lane)) & there;
            add(0, lane + m * WIDTH, down), add(1, lane + m * WIDTH, up);
            any |= down | up;
        }
        return any;
    }

    // Rounds until one triggers nothing.
    void cascade() {
        for (int r = 0; r < P.rounds && listed[0] + listed[1]; ++r) {
            for (int a = 0; a < A && !r; ++a) {
                const int a_list = P.contagious ? 0 : a;
                std::fill_n(moved[a_list] + moves[a_list], L, B);
                for (int i = 0; i < moves[a_list]; i += L) thin(a, load(moved[a_list] + i));
            }
            for (int s = 0; s < 2; ++s) {
                std::fill_n(list[s] + listed[s], L, B);
                for (int i = 0; i < listed[s]; i += L) s ? close<1>(load(list[s] + i)) : close<0>(load(list[s] + i));
                listed[s] = 0;
            }
            // The lanes that move next are written over those that have been read.
            for (int a = 0; a < (P.contagious ? 1 : A); ++a) {
                const int n = moves[a];
                std::fill_n(moved[a] + n, L, B);
                moves[a] = 0;
                for (int i = 0; i < n; i += L) {
                    const I lane = load(moved[a] + i);
                    if (!P.contagious) {
                        press(a, lane), move(a, lane, quote_again(a, lane));
                        continue;
                    }
                    unsigned any = 0;
                    for (int b = 0; b < A; ++b) press(b, lane);
                    for (int b = 0; b < A; ++b) any |= quote_again(b, lane);
                    move(0, lane, any);
                }
            }
        }
        // What the last round would have triggered is tested anew in the next step.
        listed[0] = listed[1] = 0;
        std::memset(moves, 0, sizeof(moves));
    }

    void report(OfMarkets& from, std::vector<float>& to, int hour) {
        for (int m = 0; m < M; ++m)
            std::memcpy(&to[(size_t(hour) * M + m) * P.paths + first], from[m], sizeof(float) * lanes);
        std::memset(from, 0, sizeof(from));
    }

    void run(int path, int n, Sums& sums) {
        open(path, n);
        for (int k = 0; k < P.steps; ++k) {
            const size_t row = size_t(A) * P.paths;
            now = prices + size_t(k) * row + first;
            before = k >= P.lag ? now - size_t(P.lag) * row : nullptr;
            quote_all(k);
            cascade();
            if ((k + 1) % P.steps_per_hour) continue;
            const int hour = k / P.steps_per_hour;
            report(volume, sums.volume, hour), report(remainder, sums.remainder, hour);
            report(deficit, sums.deficit, hour), report(surplus, sums.surplus, hour);
        }
    }
};

int main(int argc, char** argv) {
    if (argc < 4) return 2;
    std::FILE* file = std::fopen(argv[1], "rb");
    if (!file) return 2;
    const int threads = std::atoi(argv[3]);
    Parameters P;
    int32_t head[11];
    read(file, head);
    if (head[0] != V || head[1] != A || head[2] != E || head[3] % L) return 2;
    P.paths = head[3], P.steps = head[4], P.rungs = head[5], P.steps_per_hour = head[6];
    P.rounds = head[7], P.cells = head[8], P.window = head[9], P.lag = head[10];
    read(file, P.delta), read(file, P.rho), read(file, P.decay_local), read(file, P.decay_global);
    read(file, P.index_weight), read(file, P.spread), read(file, P.deep);
    read(file, P.coefficient), read(file, P.contagion), read(file, P.sigma), read(file, P.shift), read(file, P.adv);
    read(file, P.adv_global), read(file, P.bound), read(file, P.fee), read(file, P.log_margin);
    read(file, P.keeps), read(file, P.mark), read(file, P.average), read(file, P.partial);
    P.contagious = false;
    for (auto& row : P.contagion)
        for (float x : row) P.contagious = P.contagious || x != 0;
    P.rows.resize(size_t(M) * 2 * E * P.rungs * COLUMNS);
    read(file, P.rows.data(), P.rows.size() * sizeof(float));
    std::vector<float> log(size_t(P.steps) * A * P.paths);
    read(file, log.data(), log.size() * sizeof(float));
    std::fclose(file);
    const size_t hours = P.steps / P.steps_per_hour, rows = hours * P.paths;
    Sums sums;
    for (auto* x : {&sums.volume, &sums.remainder, &sums.deficit, &sums.surplus}) x->resize(rows * M);

    const auto began = std::chrono::steady_clock::now();
    find_next(P);
    const int blocks = (P.paths + B - 1) / B;
#pragma omp parallel num_threads(threads)
    {
        Block* block = new Block(P, log.data());
#pragma omp for schedule(dynamic)
        for (int i = 0; i < blocks; ++i) block->run(i * B, std::min(B, P.paths - i * B), sums);
        delete block;
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;

    file = std::fopen(argv[2], "wb");
    if (!file) return 2;
    for (const auto* x : {&sums.volume, &sums.remainder, &sums.deficit, &sums.surplus})
        std::fwrite(x->data(), sizeof(float), x->size(), file);
    std::fclose(file);
    std::printf("%.6f\n", took.count());
}
