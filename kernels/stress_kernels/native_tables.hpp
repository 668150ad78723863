// What the day kernel reads and says: sizes, tables and reports, in the order of `day_tables.py` and `day_report.py`.
// Abbreviations: V venues, A assets, M markets (venue by venue), B lanes of a block, L of a vector, C margin classes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "native_vectors.hpp"

namespace {

constexpr int C = 6, COLUMNS = 16, ACCOUNTS = 2 * C;  // of a row of a ladder
constexpr int B = 256, W = B + L, GROUPS = W / L;      // lanes from B on are nobody's: lists are filled up with them
constexpr float NEVER = 1e9f;
enum Rule { MEDIAN, INDEX_AVERAGE, LAST, INDEX };

struct Sizes {
    int venues, assets, pools, rungs, cells, window, lag, rounds, hours, steps_per_hour, paths;
    int markets() const { return venues * assets; }
};

// As `day_tables.Tables`, in its order; numbers of assets come last.
struct Tables {
    const float *log, *impact;
    const int32_t* first;
    const float *sigma, *coefficient, *barrier, *adv_global, *contagion, *adv, *bound, *throughput, *behind, *share;
    const int32_t *mark, *average;
    const float *fee, *keeps;
    const int32_t* every;
    const float *interest, *clamp, *cap, *divisor, *trigger_rate, *traders, *rest, *cash, *gross, *rows, *log_margin;
    const float *partial, *capacity, *discount, *multiple, *unwind;
};

// As `day_report.Report`, in its order.
struct Report {
    float *volume, *first_round, *accounts, *deficit, *surplus, *traders, *rest, *traders_cash, *rest_cash, *gross;
    float *cash, *fund_low, *index, *mark, *index_low, *index_high, *basis_low, *basis_high, *drawdown, *unknown;
    float *auction, *takeover, *makers, *makers_cash, *inventory;
};

struct Parameters : Tables {
    Sizes n;
    int M;
    float rho, delta, deep, index_weight, decay_local, decay_global, spread;
    bool contagious;
    std::vector<int> pool;     // of a market, -1 where there is none
    std::vector<int> window;   // of the mark's average, by venue, as far as the run goes [steps]
    std::vector<float> next;   // market, side, rung: log mark at which more than that is triggered
    std::vector<float> level;  // the same as a price

    Parameters(const Tables& t, const Sizes& sizes) : Tables(t), n(sizes), M(sizes.markets()) {
        rho = impact[0], delta = impact[1], deep = impact[2], index_weight = impact[3];
        decay_local = impact[4], decay_global = impact[5], spread = impact[6], contagious = impact[7] > 0;
        pool.assign(M, -1);
        for (int f = 0; f < n.pools; ++f)
            for (int m = 0; m < M; ++m)
                if (behind[f * M + m] > 0) pool[m] = f;
        n.window = std::min(n.window, n.hours * n.steps_per_hour);
        for (int v = 0; v < n.venues; ++v) window.push_back(std::min(average[v], int32_t(n.window)));
        find_next();
    }

    const float* table(int m, int s) const { return rows + size_t(m * 2 + s) * n.rungs * COLUMNS; }

    I position(F at) const {
        at = larger(at, F{});
        const F cell = float(n.cells) * (at / (spread + at));
        return whole(smaller(cell + 0.5f, all(float(n.cells))));
    }
    F depth_of(F cell) const { return spread * cell / (float(n.cells) - cell); }

    // The next rung that holds anything is reached a little before it: the list tests exactly.
    void find_next() {
        next.assign(size_t(M) * 2 * n.rungs, 0.0f), level = next;
        for (int m = 0; m < M; ++m)
            for (int s = 0; s < 2; ++s) {
                const double sign = s ? -1 : 1;
                double depth = NEVER;
                for (int r = n.rungs - 1; r >= 0; --r) {
                    const float *here = table(m, s) + size_t(r) * COLUMNS, *after = here + COLUMNS;
                    bool more = false;
                    for (int c = 0; c <= ACCOUNTS && r + 1 < n.rungs; ++c) more = more || after[c] != here[c];
                    const double cell = r + 0.5;
                    if (more && r + 1 <= n.cells)
                        depth = (cell < n.cells ? spread * cell / (n.cells - cell) : NEVER) * (1 - 1e-6) -
                                barrier[m % n.assets];
                    const size_t at = size_t(m * 2 + s) * n.rungs + r;
                    next[at] = float(-sign * depth), level[at] = float(std::exp(std::min(-sign * depth, 80.0)));
                }
            }
    }
};

// A number of every market, looked up by market: by one permutation where they fit.
struct Table {
    std::vector<float> x;
    explicit Table(int markets) : x(std::max(markets, 2 * L)) {}
    F at(I m) const {
        if (x.size() > 2 * L) return gather(x.data(), m);
        return look_up(x.data(), m);
    }
};

// What a list's look-ups need of each market.
struct Markets {
    Table asset, barrier, per_adv, per_adv_global, coefficient, fee, keeps, discount;
    std::vector<Table> bound, rate, margin, partial;  // by side, and class
    explicit Markets(const Parameters& P)
        : asset(P.M), barrier(P.M), per_adv(P.M), per_adv_global(P.M), coefficient(P.M), fee(P.M), keeps(P.M),
          discount(P.M) {
        for (auto* x : {&bound, &rate}) x->assign(2, Table(P.M));
        for (auto* x : {&margin, &partial}) x->assign(2 * C, Table(P.M));
        for (int m = 0; m < P.M; ++m) {
            const int v = m / P.n.assets, a = m % P.n.assets;
            asset.x[m] = float(a), barrier.x[m] = P.barrier[a], fee.x[m] = P.fee[v], keeps.x[m] = P.keeps[v];
            per_adv.x[m] = 1 / P.adv[m], per_adv_global.x[m] = 1 / P.adv_global[a];
            coefficient.x[m] = P.coefficient[a], discount.x[m] = P.discount[m];
            for (int s = 0; s < 2; ++s) {
                const float sign = s ? -1 : 1;
                bound[s].x[m] = std::log1p(-sign * P.bound[m]);
                rate[s].x[m] = 1 / (1 - sign * P.trigger_rate[(v * 2 + s) * P.n.assets + a]);
                for (int c = 0; c < C; ++c) {
                    margin[s * C + c].x[m] = P.log_margin[(m * 2 + s) * C + c];
                    partial[s * C + c].x[m] = P.partial[(m * 2 + s) * C + c];
                }
            }
        }
    }
};

}  // namespace
