// All hours of a block of paths on one core, as `chip_day.py` on the chip of a GPU: the order book, funding and pools.
//
// One path a lane. In a step all markets of all paths are quoted, which takes no power: between two orders a push
// decays by a constant factor. A path's next trigger is kept as a log mark, beyond empty rungs, so that the test is one
// comparison a side. What passes it goes to one list a side, of all markets, so that vectors are full where events are
// rare; lists go through look-ups, book and settlement. Then the paths with an order have their imbalances pressed,
// pools receive and pay, and markets are quoted anew, where paths lie: 16 of them at a time, round after round.
//
// A path is given up where it meets what `chip.py` names: `unknown` is 1, and what is said of it means nothing.
// Abbreviations: V venues, A assets, M markets (venue by venue), B lanes of a block, L of a vector, C margin classes.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <new>
#include <vector>

#include "native_vectors.hpp"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int C = 6, COLUMNS = 16, ACCOUNTS = 2 * C;  // of a row of a ladder
constexpr int B = 256, W = B + L, GROUPS = W / L;      // lanes from B on are nobody's: lists are filled up with them
constexpr float NEVER = 1e9f;
enum Rule { MEDIAN, INDEX_AVERAGE, LAST, INDEX };

// What is summed up of a market and path over an hour, and over a round.
enum Hour { USD, COINS = 2, PAID = 4, LACKED, GROSS, ENDED, OF_HOUR };
enum Round { IN_BOOK, FLOW, RECEIVED, LACKING, OF_ROUND };
using Eight = float __attribute__((vector_size(32), aligned(4), may_alias));
using Four = float __attribute__((vector_size(16), aligned(4), may_alias));
static_assert(OF_HOUR == 8 && OF_ROUND == 4, "what a vector of 16 numbers holds");

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
    const float* partial;
};

// As `day_report.Report`, in its order.
struct Report {
    float *volume, *first_round, *accounts, *deficit, *surplus, *traders, *rest, *traders_cash, *rest_cash, *gross;
    float *cash, *fund_low, *index, *mark, *index_low, *index_high, *basis_low, *basis_high, *drawdown, *unknown;
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
        return __builtin_shuffle(load(x.data()), load(x.data() + L), m);
    }
};

// What a list's look-ups need of each market.
struct Markets {
    Table asset, barrier, per_adv, per_adv_global, coefficient, fee, keeps;
    std::vector<Table> bound, rate, margin, partial;  // by side, and class
    explicit Markets(const Parameters& P)
        : asset(P.M), barrier(P.M), per_adv(P.M), per_adv_global(P.M), coefficient(P.M), fee(P.M), keeps(P.M) {
        for (auto* x : {&bound, &rate}) x->assign(2, Table(P.M));
        for (auto* x : {&margin, &partial}) x->assign(2 * C, Table(P.M));
        for (int m = 0; m < P.M; ++m) {
            const int v = m / P.n.assets, a = m % P.n.assets;
            asset.x[m] = float(a), barrier.x[m] = P.barrier[a], fee.x[m] = P.fee[v], keeps.x[m] = P.keeps[v];
            per_adv.x[m] = 1 / P.adv[m], per_adv_global.x[m] = 1 / P.adv_global[a];
            coefficient.x[m] = P.coefficient[a];
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

// Rows of numbers of all lanes.
struct Board {
    std::vector<F> x;
    explicit Board(int rows) : x(size_t(rows) * GROUPS) {}
    float* operator[](int row) { return reinterpret_cast<float*>(x.data()) + size_t(row) * W; }
    float* data() { return (*this)[0]; }
    void fill(float value) { std::fill(x.begin(), x.end(), all(value)); }
};

// Sums that carry what 32 bits would drop, as `money.Sum`.
struct Sums {
    Board high, low;
    explicit Sums(int rows) : high(rows), low(rows) {}
    void open(int row, float value) { std::fill_n(high[row], W, value), std::fill_n(low[row], W, 0.0f); }
    void add(int row, int i, F x) {
        const F before = load(high[row] + i), total = before + x, back = total - before;
        const F error = (before - (total - back)) + (x - back);
        store(high[row] + i, total), store(low[row] + i, load(low[row] + i) + error);
    }
    F value(int row, int i) { return load(high[row] + i) + load(low[row] + i); }
};

static inline void widen(float* low, float* high, F x) {
    store(low, smaller(load(low), x)), store(high, larger(load(high), x));
}

struct Block {
    const Parameters& P;
    const Markets of;
    const Report& to;
    const int V, A, M;
    int first = 0, lanes = 0;

    Board u_local, basis, total, premium, mark, shift, basis_low, basis_high, used, first_round;  // by market
    Board moved_to, basis_after;                                // by market: where an order alone in it and its round leads
    Board u_global, push, index, depth, index_low, index_high;  // by asset
    Board next[2];                                              // by market: log marks at which a side triggers more
    std::vector<int32_t> reach[2];
    Board sums, round;  // by market, an `Hour` and a `Round` for each lane
    Sums traders, rest, traders_cash, rest_cash, cash;
    Board peak, drawdown, fund_low, received, lacked, gross;  // by pool; of cash and coins
    std::vector<float> ring;
    std::vector<int32_t> list[2];  // market x W + lane of what is triggered
    std::vector<uint16_t> hit, twice;  // market, group of lanes: on either side, and on both
    uint16_t known[GROUPS], live[GROUPS];
    int listed[2];
    float left, left_global;  // of an imbalance of 1
    bool shifted;             // whether any funding has been paid
    const float *now, *before;
    std::vector<float> inverse;  // of the samples in the average
    // Of 16 lanes in a round: own pushes and whether anything is pressed, by asset; what pools get and pay.
    std::vector<F> own;
    std::vector<uint8_t> pressed;
    std::vector<F> receipts, deficits;
    std::vector<uint8_t> paying;

    Block(const Parameters& p, const Report& report)
        : P(p), of(p), to(report), V(p.n.venues), A(p.n.assets), M(p.M), u_local(M), basis(M), total(M), premium(M),
          mark(M), shift(M), basis_low(M), basis_high(M), used(M), first_round(M), moved_to(M), basis_after(M),
          u_global(A), push(A), index(A), depth(A), index_low(A), index_high(A), next{Board(M), Board(M)},
          sums(M * OF_HOUR), round(M * OF_ROUND), traders(2 * M), rest(M), traders_cash(V), rest_cash(V),
          cash(p.n.pools), peak(p.n.pools), drawdown(p.n.pools), fund_low(p.n.pools), received(p.n.pools),
          lacked(p.n.pools), gross(2), ring(size_t(p.n.window) * M * B), hit(size_t(M) * GROUPS), twice(hit),
          inverse(V), own(A), pressed(A), receipts(p.n.pools), deficits(p.n.pools), paying(p.n.pools) {
        for (int s = 0; s < 2; ++s) reach[s].resize(size_t(M) * W), list[s].resize(size_t(M) * W + L);
    }

    float* hour_of(int m, int lane) { return sums.data() + (size_t(m) * W + lane) * OF_HOUR; }

    void open(int path, int count) {
        first = path, lanes = count, shifted = false, left = left_global = 1;
        for (auto* x : {&u_local, &basis, &total, &premium, &mark, &shift, &used, &u_global, &push, &index, &depth})
            x->fill(0);
        for (auto* x : {&moved_to, &basis_after, &sums, &round, &first_round, &drawdown, &received, &lacked}) x->fill(0);
        std::fill(ring.begin(), ring.end(), 0.0f);
        std::fill_n(known, GROUPS, uint16_t(0xffff));
        for (int m = 0; m < M; ++m) {
            const int v = m / A, a = m % A;
            for (int s = 0; s < 2; ++s) {
                std::fill_n(next[s][m], W, P.next[size_t(m * 2 + s) * P.n.rungs]);
                traders.open(m * 2 + s, P.traders[(v * 2 + s) * A + a]);
            }
            rest.open(m, P.rest[m]);
        }
        for (int s = 0; s < 2; ++s) std::fill(reach[s].begin(), reach[s].end(), 0);
        for (int v = 0; v < V; ++v) traders_cash.open(v, 0), rest_cash.open(v, 0);
        for (int f = 0; f < P.n.pools; ++f) cash.open(f, P.cash[f]), std::fill_n(peak[f], W, P.cash[f]);
        for (int i = 0; i < 2; ++i) std::fill_n(gross[i], W, P.gross[i]);
    }

    F quote(int v, F level, F here, F average) const {
        switch (P.mark[v]) {
            case LAST: return level + here;
            case INDEX_AVERAGE: return level + average;
            case INDEX: return level;
            default: return level + larger(smaller(average, here), smaller(larger(average, here), F{}));
        }
    }

    // Log indices of 16 lanes, from their own pushes; a path that has none is given up.
    void indices(int i) {
        I sound = I{} == 0;
        for (int a = 0; a < A; ++a) {
            F sum = own[a];
            if (P.contagious)
                for (int b = 0; b < A; ++b) sum += P.contagion[b * A + a] * own[b];
            const F level = load(&now[size_t(a) * P.n.paths + i]) + P.index_weight * sum;
            store(index[a] + i, level);
            widen(index_low[a] + i, index_high[a] + i, level);
            sound &= level - level == 0;
        }
        known[i / L] &= uint16_t(bits(sound));
    }

    // Bases of 16 lanes in a step of the window, side by side.
    float* sample(int step, int i) { return &ring[(size_t(step) * (B / L) + i / L) * M * L]; }

    // Test a market's marks, and list what they trigger.
    unsigned test(int m, int i, F at) {
        const unsigned down = bits(at <= load(next[0][m] + i)) & known[i / L];
        const unsigned up = bits(at >= load(next[1][m] + i)) & known[i / L];
        const size_t here = size_t(m) * GROUPS + i / L;
        hit[here] = uint16_t(down | up), twice[here] = uint16_t(down & up);
        if (down) listed[0] += put(&list[0][listed[0]], IOTA + (m * W + i), down);
        if (up) listed[1] += put(&list[1][listed[1]], IOTA + (m * W + i), up);
        return down | up;
    }

    // Imbalances are kept as multiples of what decay has left of 1 since all of them were last brought up to date.
    void decay(float& of_one, float factor, Board& u, int rows) {
        of_one *= factor;
        if (of_one > 1e-6f) return;
        for (int r = 0; r < rows; ++r)
            for (int i = 0; i < lanes; i += L) store(u[r] + i, load(u[r] + i) * of_one);
        of_one = 1;
    }

    // All paths and markets: imbalances decay, bases go into the average, prices are quoted and tested.
    void quote_all(int k) {
        const float fall = std::pow(P.decay_local, P.delta), fall_global = std::pow(P.decay_global, P.delta);
        const int window = P.n.window;
        bool any_due = false;
        for (int v = 0; v < V; ++v) {
            inverse[v] = 1.0f / float(std::min(k + 1, P.window[v]));
            any_due = any_due || (k + 1) % P.every[v] == 0;
        }
        shifted = shifted || any_due;
        listed[0] = listed[1] = 0;
        decay(left, P.decay_local, u_local, M), decay(left_global, P.decay_global, u_global, A);
        for (int i = 0; i < lanes; i += L) {
            for (int a = 0; a < A; ++a) {
                const F p = load(push[a] + i) * fall_global;
                store(push[a] + i, p), own[a] = P.rho * p;
            }
            indices(i);
            unsigned any = 0;
            for (int v = 0; v < V; ++v) {
                const bool due = (k + 1) % P.every[v] == 0, full = k >= P.window[v];
                float *last = sample(k % window, i), *oldest = sample((k + window - P.window[v]) % window, i);
                F paid{}, rest_paid{}, gross_paid{};
                for (int a = 0; a < A; ++a) {
                    const int m = v * A + a;
                    const F b = load(basis[m] + i) * fall;
                    F sum = load(total[m] + i) + b;
                    if (full) sum -= load(oldest + m * L);
                    store(last + m * L, b);
                    store(basis[m] + i, b), store(total[m] + i, sum);
                    const F premiums = load(premium[m] + i) + small_expm1(b);
                    const F at = quote(v, load(index[a] + i), b, sum * inverse[v]);
                    store(premium[m] + i, due ? F{} : premiums), store(mark[m] + i, at);
                    if (due) fund(v, m, i, premiums, at, paid, rest_paid, gross_paid);
                    any |= test(m, i, at);
                }
                if (!due) continue;
                traders_cash.add(v, i, -paid), rest_cash.add(v, i, -rest_paid);
                store(gross[0] + i, load(gross[0] + i) + gross_paid);
            }
            live[i / L] = uint16_t(any);
        }
    }

    // Every holder pays rate x mark a coin, accounts through their triggers.
    void fund(int v, int m, int i, F premiums, F at, F& paid, F& rest_paid, F& gross_paid) {
        const auto within = [](F x, float bound) { return larger(smaller(x, all(bound)), all(-bound)); };
        const F mean = premiums / float(P.every[v]);
        const F rate = within((mean + within(P.interest[v] - mean, P.clamp[v])) / P.divisor[v], P.cap[v]);
        const F per_coin = rate * exp_of(at);
        const F closed[2] = {summed(m, i, COINS), summed(m, i, COINS + 1)};
        const F longs = traders.value(2 * m, i) - closed[0], shorts = traders.value(2 * m + 1, i) + closed[1];
        paid += per_coin * (longs + shorts);
        rest_paid += per_coin * (rest.value(m, i) + closed[0] - closed[1]);
        gross_paid += magnitude(per_coin) * (magnitude(longs) + magnitude(shorts));
        const F moved = load(shift[m] + i) + per_coin;
        store(shift[m] + i, moved);
        for (int s = 0; s < 2; ++s) {
            const I m_s = I{} + (m * 2 + s);
            store(next[s][m] + i, next_mark(s, m_s, load(&reach[s][size_t(m) * W + i]), moved, I{} + m));
        }
    }

    F summed(int m, int i, int which) { return gather(hour_of(m, i) + which, IOTA * int(OF_HOUR)); }

    // Log mark at which more is triggered than lies before a rung; sooner, as rounding may have it.
    F next_mark(int s, I ladder, I rung, F moved, I m) const {
        const I at = ladder * P.n.rungs + rung;
        if (!shifted) return gather(P.next.data(), at);
        const F price = gather(P.level.data(), at) + moved * of.rate[s].at(m);
        return log_of(larger(price, all(1e-30f))) + (s ? -3e-7f : 3e-7f);
    }

    I position(F at) const {
        at = larger(at, F{});
        const F cell = float(P.n.cells) * (at / (P.spread + at));
        return whole(smaller(cell + 0.5f, all(float(P.n.cells))));
    }
    F depth_of(F cell) const { return P.spread * cell / (float(P.n.cells) - cell); }

    // Mean of |u|^delta with its sign over [u, u + du], given that at u and at u + du, as `price.mean_power`.
    F mean_push(F u, F du, F start, F end) const {
        const I small = (magnitude(du) < 0.03f * magnitude(u)) | (du == 0);
        const F x = du / (u == 0 ? all(1.0f) : u), d = all(P.delta);
        const F tail = 1 + (d - 2) * x * 0.25f * (1 + (d - 3) * x * 0.2f);
        const F series = 1 + d * x * 0.5f * (1 + (d - 1) * x * (1 / 3.0f) * tail);
        const F swept = magnitude(u + du) * magnitude(end) - magnitude(u) * magnitude(start);
        return small ? start * series : swept / ((P.delta + 1) * (small ? all(1.0f) : du));
    }

    void give_up(I lane, unsigned which) {
        for (; which; which &= which - 1) {
            const int l = lane[__builtin_ctz(which)];
            known[l / L] &= uint16_t(~(1u << l % L));
        }
    }

    // Close what a vector of markets and paths has triggered on one side.
    template <int s> void close(I key) {
        constexpr float sign = s ? -1 : 1;
        const I m = whole((number(key) + 0.5f) * (1.0f / W));
        const I of_asset = key + (whole(of.asset.at(m)) - m) * W;
        const F at = gather(mark.data(), key), moved = shifted ? gather(shift.data(), key) : F{};
        F log = at;
        if (shifted) {
            const F less = moved * exp_of(-at) * of.rate[s].at(m);
            log += log_of(larger(1 - less, all(1e-3f)));
        }
        const I low = gather(reach[s].data(), key), there = position(-sign * log + of.barrier.at(m));
        const I high = there > low ? there : low, ladder = m * 2 + s;
        scatter(reach[s].data(), key, high);
        scatter(next[s].data(), key, next_mark(s, ladder, high, moved, m));

        alignas(64) int32_t from[L], to[L], place[L];
        *(I*)from = (ladder * P.n.rungs + low) * COLUMNS, *(I*)to = (ladder * P.n.rungs + high) * COLUMNS;
        F rows[L];
        for (int l = 0; l < L; ++l) rows[l] = load(P.rows + to[l]) - load(P.rows + from[l]);
        transpose(rows);
        F coins{};
        for (int c = 0; c < C; ++c) coins += rows[2 * c];

        // The book, along the curve from the round's opening, at most to the take bound.
        const F usd = coins * exp_of(at), g = gather(depth.data(), of_asset);
        const F coefficient = of.coefficient.at(m), ul = left * gather(u_local.data(), key);
        const F ug = left_global * gather(u_global.data(), of_asset);
        const F local = (1 - P.rho) * coefficient, everywhere = P.index_weight * P.rho * coefficient;
        // Where orders do not press, what they would have pressed counts for nothing.
        const F start_local = local > 0 ? gather(basis.data(), key) / local : F{};
        const F start_global = coefficient > 0 ? gather(push.data(), of_asset) / coefficient : F{};
        const F base = gather(index.data(), of_asset) - everywhere * start_global;
        const F by_local = -sign * usd * g * of.per_adv.at(m), by_global = -sign * usd * g * of.per_adv_global.at(m);
        const F after_local = ul + by_local, after_global = ug + by_global;
        const F end_local = signed_as(power(magnitude(after_local), P.delta), after_local);
        const F end_global = signed_as(power(magnitude(after_global), P.delta), after_global);
        scatter(moved_to.data(), key, after_local * (1 / left)), scatter(basis_after.data(), key, local * end_local);
        const F last = base + everywhere * end_global + local * end_local;
        const F move = expm1_of(base + everywhere * mean_push(ug, by_global, start_global, end_global) +
                                local * mean_push(ul, by_local, start_local, end_local));
        const I beyond = (sign * (last - (at + of.bound[s].at(m))) < 0) & (coins > 0);
        if (const unsigned lost = bits(beyond | ~(move - move == 0))) give_up(key - m * W, lost);

        // Settlement. Accounts come by bankruptcy price: bankrupt, short of the fee, whole, class by class.
        const F fee = of.fee.at(m) * (1 + move), level = move - moved;
        const F zero = -sign * log_of(larger(1 + level, all(1e-3f)));
        const F full = -sign * log_of(larger(1 + level - sign * fee, all(1e-3f)));
        const F past_low = depth_of(number(low) + 0.5f), past_high = depth_of(number(high) - 0.5f);
        F lack{}, fees{}, spare{};
        for (int c = 0; c < C; ++c) {
            const F quantity = rows[2 * c], value = rows[2 * c + 1], margin = of.margin[s * C + c].at(m);
            const F to_zero = zero + sign * margin, to_full = full + sign * margin;
            const I partial = of.partial[s * C + c].at(m) != 0;
            if (!bits(to_full >= past_low)) {
                const F due = fee * quantity;
                fees += due;
                spare += partial ? F{} : larger(sign * (quantity * level - value) - due, F{});
                continue;
            }
            // What the class holds up to a depth, of all it holds; inside the sweep its table says.
            const auto up_to = [&](F depth, F& q, F& x) {
                const I every = depth >= past_high, inside = (depth >= past_low) & ~every;
                q = every ? quantity : F{}, x = every ? value : F{};
                if (!bits(inside)) return;
                I rung = position(depth);
                rung = rung < low ? low : rung, rung = rung > high ? high : rung;
                const float* t = P.rows + 2 * c;
                const I start = (ladder * P.n.rungs + low) * COLUMNS, stop = start + (rung - low) * COLUMNS;
                q = inside ? gather(t, stop) - gather(t, start) : q;
                x = inside ? gather(t + 1, stop) - gather(t + 1, start) : x;
            };
            F q0, x0, q1, x1;
            up_to(to_zero, q0, x0), up_to(to_full, q1, x1);
            lack += larger(-sign * (q0 * level - x0), F{});
            const F q = quantity - q1, x = value - x1, due = fee * q;
            const F left = larger(sign * ((q1 - q0) * level - (x1 - x0)), F{});
            fees += partial ? fee * (quantity - q0) : due + left;
            spare += partial ? F{} : larger(sign * (q * level - x) - due, F{});
        }
        const F got = fees + of.keeps.at(m) * spare, earned = coins * (1 + move), ended = rows[ACCOUNTS];
        for (F& x : rows) x = F{};
        rows[USD + s] = usd, rows[COINS + s] = coins, rows[PAID] = sign * earned, rows[LACKED] = lack - got;
        rows[GROSS] = earned + lack + got, rows[ENDED] = ended;
        rows[OF_HOUR + IN_BOOK] = usd, rows[OF_HOUR + FLOW] = -sign * usd * g;
        rows[OF_HOUR + RECEIVED] = got, rows[OF_HOUR + LACKING] = lack;
        transpose(rows);
        *(I*)place = key;
        for (int l = 0; l < L; ++l) {
            const float* mine = reinterpret_cast<const float*>(&rows[l]);
            *reinterpret_cast<Eight*>(sums.data() + size_t(place[l]) * OF_HOUR) += *reinterpret_cast<const Eight*>(mine);
            *reinterpret_cast<Four*>(round.data() + size_t(place[l]) * OF_ROUND) +=
                *reinterpret_cast<const Four*>(mine + OF_HOUR);
        }
    }

    // How much thinner the books of 16 lanes are.
    void thin(int i) {
        for (int a = 0; a < A; ++a) {
            F fall = load(&now[size_t(a) * P.n.paths + i]);
            if (before) fall -= load(&before[size_t(a) * P.n.paths + i]);
            const F z = magnitude(fall) * (std::sqrt(288.0f) / (11.8f * P.sigma[a]));
            store(depth[a] + i, P.deep > 0 ? smaller(1 + power(z, 1.75f), all(20.0f)) : all(1.0f));
        }
        for (int m = 0; m < M; ++m) store(used[m] + i, F{});
    }

    // What a round has closed of 16 lanes moves imbalances; pools receive and pay.
    void press(int i, bool at_first) {
        const int g = i / L;
        unsigned lost = 0;
        for (int f = 0; f < P.n.pools; ++f) receipts[f] = deficits[f] = F{}, paying[f] = 0;
        for (int a = 0; a < A; ++a) {
            F everywhere{};
            pressed[a] = 0;
            for (int v = 0; v < V; ++v) {
                const int m = v * A + a;
                if (!hit[size_t(m) * GROUPS + g]) continue;
                pressed[a] = 1;
                F round[OF_ROUND];
                take_round(m, i, round);
                if (at_first) store(first_round[m] + i, load(first_round[m] + i) + round[IN_BOOK]);
                const F before = load(used[m] + i), spent = before + round[IN_BOOK];
                lost |= bits(round[IN_BOOK] > larger(P.throughput[m] - before, F{}));
                store(used[m] + i, spent);
                everywhere += round[FLOW];
                const I moved = round[FLOW] != 0;
                const F was = load(u_local[m] + i), old = load(basis[m] + i);
                F u = load(moved_to[m] + i), b = load(basis_after[m] + i);
                if (twice[size_t(m) * GROUPS + g]) {
                    const F ul = left * was + round[FLOW] * (1 / P.adv[m]);
                    u = ul * (1 / left);
                    b = signed_as((1 - P.rho) * P.coefficient[a] * power(magnitude(ul), P.delta), ul);
                }
                store(u_local[m] + i, moved ? u : was);
                const F anew = moved ? b : old;
                widen(basis_low[m] + i, basis_high[m] + i, old), widen(basis_low[m] + i, basis_high[m] + i, anew);
                store(basis[m] + i, anew);
                if (P.pool[m] < 0) continue;
                receipts[P.pool[m]] += round[RECEIVED], deficits[P.pool[m]] += round[LACKING];
                paying[P.pool[m]] = 1;
            }
            if (!pressed[a]) continue;
            const I moved = everywhere != 0;
            const F was = load(u_global[a] + i), ug = left_global * was + everywhere * (1 / P.adv_global[a]);
            store(u_global[a] + i, moved ? ug * (1 / left_global) : was);
            const F p = signed_as(P.coefficient[a] * power(magnitude(ug), P.delta), ug);
            store(push[a] + i, moved ? p : load(push[a] + i));
        }
        for (int f = 0; f < P.n.pools; ++f) {
            if (!paying[f]) continue;
            store(received[f] + i, load(received[f] + i) + receipts[f]);
            store(lacked[f] + i, load(lacked[f] + i) + deficits[f]);
            cash.add(f, i, receipts[f]);
            lost |= bits(deficits[f] > larger(cash.value(f, i), F{}));
            cash.add(f, i, -deficits[f]);
            const F equity = cash.value(f, i), top = larger(load(peak[f] + i), equity);
            store(peak[f] + i, top);
            store(drawdown[f] + i, larger(load(drawdown[f] + i), top - equity));
            store(fund_low[f] + i, smaller(load(fund_low[f] + i), equity));
            // Exhausted, or so far below the highest peak, which no rolling one exceeds, that deleveraging may be on.
            lost |= bits(~(equity > 1.0f)) | bits(~(equity < 3e38f));
            if (P.share[f] <= 1) lost |= bits(equity <= (1 - P.share[f]) * top);
        }
        known[g] &= uint16_t(~lost);
    }

    // Take what a round has posted for a market and 16 lanes.
    void take_round(int m, int i, F (&x)[OF_ROUND]) {
        float* from = round.data() + (size_t(m) * W + i) * OF_ROUND;
        F four[OF_ROUND];
        for (int j = 0; j < OF_ROUND; ++j) four[j] = load(from + j * L), store(from + j * L, F{});
        const I even = {0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29}, odd = even + 2;
        const I low = {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23}, high = low + 8;
        for (int j = 0; j < 2; ++j) {
            const I which = j ? odd : even;
            const F a = __builtin_shuffle(four[0], four[1], which), b = __builtin_shuffle(four[2], four[3], which);
            x[2 * j] = __builtin_shuffle(a, b, low), x[2 * j + 1] = __builtin_shuffle(a, b, high);
        }
    }

    // New quotes of 16 lanes, and whom they trigger.
    void quote_again(int i) {
        for (int a = 0; a < A; ++a) own[a] = P.rho * load(push[a] + i);
        indices(i);
        unsigned any = 0;
        for (int a = 0; a < A; ++a)
            for (int v = 0; v < V; ++v) {
                const int m = v * A + a;
                if (!P.contagious && !pressed[a]) continue;
                const F at = quote(v, load(index[a] + i), load(basis[m] + i), load(total[m] + i) * inverse[v]);
                store(mark[m] + i, at);
                any |= test(m, i, at);
            }
        live[i / L] = uint16_t(any);
    }

    // Rounds until one triggers nothing; what the last would have triggered is tested anew in the next step.
    void cascade() {
        for (int r = 0; r < P.n.rounds && listed[0] + listed[1]; ++r) {
            for (int i = 0; i < lanes && !r; i += L)
                if (live[i / L]) thin(i);
            for (int s = 0; s < 2; ++s) {
                std::fill_n(&list[s][listed[s]], L, B);
                for (int j = 0; j < listed[s]; j += L)
                    s ? close<1>(load(&list[s][j])) : close<0>(load(&list[s][j]));
                listed[s] = 0;
            }
            for (int i = 0; i < lanes; i += L)
                if (live[i / L]) press(i, !r), quote_again(i);
        }
    }

    void new_hour() {
        for (int i = 0; i < lanes; i += L) {
            for (int a = 0; a < A; ++a)
                store(index_low[a] + i, load(index[a] + i)), store(index_high[a] + i, load(index[a] + i));
            for (int m = 0; m < M; ++m)
                store(basis_low[m] + i, load(basis[m] + i)), store(basis_high[m] + i, load(basis[m] + i));
            for (int f = 0; f < P.n.pools; ++f) store(fund_low[f] + i, cash.value(f, i));
        }
    }

    // Post an hour, report it, and clear what is summed over one.
    void end_hour(int hour) {
        for (int i = 0; i < lanes; i += L) post(hour, i);
        const auto put = [&](float* report, int rows, int row, const float* from) {
            std::memcpy(report + (size_t(hour) * rows + row) * P.n.paths + first, from, sizeof(float) * lanes);
        };
        const auto put_sum = [&](float* report, int rows, int row, Sums& sum, int of) {
            put(report, 2 * rows, row, sum.high[of]), put(report, 2 * rows, rows + row, sum.low[of]);
        };
        for (int m = 0; m < M; ++m) {
            const int v = m / A, a = m % A;
            for (int s = 0; s < 2; ++s) put_sum(to.traders, 2 * M, (v * 2 + s) * A + a, traders, 2 * m + s);
            put_sum(to.rest, M, m, rest, m);
            put(to.mark, M, m, mark[m]), put(to.basis_low, M, m, basis_low[m]), put(to.basis_high, M, m, basis_high[m]);
        }
        for (int v = 0; v < V; ++v)
            put_sum(to.traders_cash, V, v, traders_cash, v), put_sum(to.rest_cash, V, v, rest_cash, v);
        for (int a = 0; a < A; ++a) {
            put(to.index, A, a, index[a]), put(to.index_low, A, a, index_low[a]);
            put(to.index_high, A, a, index_high[a]);
        }
        for (int f = 0; f < P.n.pools; ++f) {
            put(to.surplus, P.n.pools, f, received[f]), put(to.deficit, P.n.pools, f, lacked[f]);
            put(to.fund_low, P.n.pools, f, fund_low[f]);
            put_sum(to.cash, P.n.pools, f, cash, f);
        }
        for (int j = 0; j < 2; ++j) put(to.gross, 2, j, gross[j]);
        for (auto* x : {&sums, &first_round, &received, &lacked}) x->fill(0);
    }

    // The hour of 16 lanes.
    void post(int hour, int i) {
        const auto out = [&](float* report, int rows, int row, F x) {
            store(report + (size_t(hour) * rows + row) * P.n.paths + first + i, x);
        };
        F money = load(gross[0] + i), coins = load(gross[1] + i);
        for (int v = 0; v < V; ++v) {
            F paid{}, lack{}, ended{};
            for (int a = 0; a < A; ++a) {
                const int m = v * A + a;
                F x[OF_HOUR];
                for (int j = 0; j < OF_HOUR; ++j) x[j] = summed(m, i, j);
                for (int s = 0; s < 2; ++s) {
                    out(to.volume, 2 * M, (v * 2 + s) * A + a, x[USD + s]);
                    traders.add(2 * m + s, i, s ? x[COINS + s] : -x[COINS + s]);
                }
                rest.add(m, i, x[COINS] - x[COINS + 1]);
                out(to.first_round, M, m, load(first_round[m] + i));
                paid += x[PAID], lack += x[LACKED], ended += x[ENDED];
                money += x[GROSS], coins += x[COINS] + x[COINS + 1];
                widen(basis_low[m] + i, basis_high[m] + i, load(basis[m] + i));
            }
            out(to.accounts, V, v, ended);
            traders_cash.add(v, i, paid), traders_cash.add(v, i, lack), rest_cash.add(v, i, -paid);
        }
        store(gross[0] + i, money), store(gross[1] + i, coins);
    }

    void run(int path, int count) {
        open(path, count);
        const size_t step = size_t(A) * P.n.paths;
        for (int hour = 0, k = 0; hour < P.n.hours; ++hour) {
            new_hour();
            for (int j = 0; j < P.n.steps_per_hour; ++j, ++k) {
                now = P.log + size_t(k) * step + first;
                before = k >= P.n.lag ? now - size_t(P.n.lag) * step : nullptr;
                quote_all(k);
                cascade();
            }
            end_hour(hour);
        }
        for (int f = 0; f < P.n.pools; ++f)
            std::memcpy(to.drawdown + size_t(f) * P.n.paths + first, drawdown[f], sizeof(float) * lanes);
        for (int l = 0; l < lanes; ++l) to.unknown[first + l] = known[l / L] >> l % L & 1 ? 0.0f : 1.0f;
    }
};

ffi::Error day(ffi::RemainingArgs given, ffi::RemainingRets said, ffi::Span<const int64_t> sizes) {
    constexpr size_t inputs = sizeof(Tables) / sizeof(void*), outputs = sizeof(Report) / sizeof(void*);
    if (given.size() != inputs || said.size() != outputs || sizes.size() != sizeof(Sizes) / sizeof(int))
        return ffi::Error::InvalidArgument("the native kernel was given other tables than it knows");
    Tables tables;
    Report report;
    Sizes n;
    for (size_t i = 0; i < inputs; ++i) {
        const auto buffer = given.get<ffi::AnyBuffer>(i);
        const size_t at = i * sizeof(void*);
        const bool is_whole = at == offsetof(Tables, first) || at == offsetof(Tables, mark) ||
                              at == offsetof(Tables, average) || at == offsetof(Tables, every);
        if (buffer->element_type() != (is_whole ? ffi::DataType::S32 : ffi::DataType::F32))
            return ffi::Error::InvalidArgument("the native kernel was given numbers of another type than it knows");
        const void* data = buffer->untyped_data();
        std::memcpy(reinterpret_cast<char*>(&tables) + at, &data, sizeof(void*));
    }
    for (size_t i = 0; i < outputs; ++i) {
        void* data = (*said.get<ffi::AnyBuffer>(i))->untyped_data();
        std::memcpy(reinterpret_cast<char*>(&report) + i * sizeof(void*), &data, sizeof(void*));
    }
    for (size_t i = 0; i < sizes.size(); ++i) (&n.venues)[i] = int(sizes[i]);
    try {
        const Parameters parameters(tables, n);
        Block block(parameters, report);
        for (int path = 0; path < n.paths; path += B) block.run(path, std::min(B, n.paths - path));
    } catch (const std::bad_alloc&) {
        return ffi::Error(ffi::ErrorCode::kResourceExhausted, "the native kernel finds no memory");
    }
    return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    liqstress_day, day,
    ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attr<ffi::Span<const int64_t>>("sizes"));
