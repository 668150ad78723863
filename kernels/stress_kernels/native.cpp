// All hours of a block of paths on one core, as `chip_day.py` on the chip of a GPU: the order book, funding and pools.
//
// One path a lane. In a step all markets of all paths are quoted, which takes no power: between two orders a push
// decays by a constant factor. A path's next trigger is kept as a log mark, beyond empty rungs, so that the test is one
// comparison a side. What passes it goes to one list a side, of all markets, so that vectors are full where events are
// rare; lists go through look-ups, book and settlement. Then the paths with an order have their imbalances pressed,
// pools receive and pay, and markets are quoted anew, where paths lie: 16 of them at a time, round after round.
//
// What the book does not take of a round's orders goes to auctions and pools, all of it together; what pools have taken
// over they sell at the end of every step. A path is given up where these do not take all either, and where it meets
// what else `chip.py` names: `unknown` is 1, and what is said of it means nothing.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <new>
#include <vector>

#include "native_orders.hpp"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// What is summed up of a market and path over an hour, and over a round.
enum Hour { USD, COINS = 2, PAID = 4, LACKED, GROSS, ENDED, OF_HOUR };
enum Round { ORDERED, FLOW, RECEIVED, LACKING, OF_ROUND };
using Eight = float __attribute__((vector_size(32), aligned(4), may_alias));
using Four = float __attribute__((vector_size(16), aligned(4), may_alias));
static_assert(OF_HOUR == 8 && OF_ROUND == 4, "what a vector of 16 numbers holds");

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
    void add_one(int row, int lane, float x) {
        F one{};
        one[lane % L] = x;
        add(row, lane / L * L, one);
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
    Board moved_to, basis_after;  // by market: where an order alone in it and its round leads
    Board u_global, push, index, depth, index_low, index_high;  // by asset
    Board next[2];                                              // by market: log marks at which a side triggers more
    std::vector<int32_t> reach[2];
    Board sums, round;  // by market, an `Hour` and a `Round` for each lane
    Sums traders, rest, traders_cash, rest_cash, cash, makers, makers_cash, inventory;
    Board peak, drawdown, fund_low, received, lacked, gross;  // by pool; of cash and coins
    Board auctioned, taken_over;  // by market and side in the hour [USD]
    Board beside, beside_cash;    // what others than the rest of the market gave and paid, by market, by venue
    Board makers_left, asked, asked_of_pool;
    std::vector<float> ring;
    std::vector<int32_t> list[2];  // market x W + lane of what is triggered
    std::vector<uint16_t> hit, twice;  // market, group of lanes: on either side, and on both
    std::vector<Deferred> deferred[2];
    uint16_t known[GROUPS], live[GROUPS], holds[GROUPS];  // `holds`: where pools hold what they have taken over
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
          cash(p.n.pools), makers(M), makers_cash(V), inventory(M), peak(p.n.pools), drawdown(p.n.pools),
          fund_low(p.n.pools), received(p.n.pools), lacked(p.n.pools), gross(2), auctioned(2 * M), taken_over(2 * M),
          beside(M), beside_cash(V), makers_left(M), asked(M), asked_of_pool(p.n.pools),
          ring(size_t(p.n.window) * M * B), hit(size_t(M) * GROUPS), twice(hit), inverse(V), own(A), pressed(A),
          receipts(p.n.pools), deficits(p.n.pools), paying(p.n.pools) {
        for (int s = 0; s < 2; ++s) reach[s].resize(size_t(M) * W), list[s].resize(size_t(M) * W + L);
    }

    float* hour_of(int m, int lane) { return sums.data() + (size_t(m) * W + lane) * OF_HOUR; }

    void open(int path, int count) {
        first = path, lanes = count, shifted = false, left = left_global = 1;
        for (auto* x : {&u_local, &basis, &total, &premium, &mark, &shift, &used, &u_global, &push, &index, &depth})
            x->fill(0);
        for (auto* x : {&moved_to, &basis_after, &sums, &round, &first_round, &drawdown, &received, &lacked, &auctioned,
                        &taken_over, &beside, &beside_cash, &asked, &asked_of_pool})
            x->fill(0);
        std::fill_n(holds, GROUPS, uint16_t(0));
        std::fill(ring.begin(), ring.end(), 0.0f);
        std::fill_n(known, GROUPS, uint16_t(0xffff));
        for (int m = 0; m < M; ++m) {
            const int v = m / A, a = m % A;
            for (int s = 0; s < 2; ++s) {
                std::fill_n(next[s][m], W, P.next[size_t(m * 2 + s) * P.n.rungs]);
                traders.open(m * 2 + s, P.traders[(v * 2 + s) * A + a]);
            }
            rest.open(m, P.rest[m]), makers.open(m, 0), inventory.open(m, 0);
        }
        for (int s = 0; s < 2; ++s) std::fill(reach[s].begin(), reach[s].end(), 0);
        for (int v = 0; v < V; ++v) traders_cash.open(v, 0), rest_cash.open(v, 0), makers_cash.open(v, 0);
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

    F quote_of(int m, int i) {
        const int v = m / A;
        return quote(v, load(index[m % A] + i), load(basis[m] + i), load(total[m] + i) * inverse[v]);
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
                Paid paid;
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
                    if (due) fund(v, m, i, premiums, at, paid);
                    any |= test(m, i, at);
                }
                if (!due) continue;
                traders_cash.add(v, i, -paid.traders), rest_cash.add(v, i, -paid.rest);
                makers_cash.add(v, i, -paid.makers);
                store(gross[0] + i, load(gross[0] + i) + paid.gross);
            }
            live[i / L] = uint16_t(any);
            if (holds[i / L]) observe(i, true);
        }
    }

    struct Paid {
        F traders{}, rest{}, makers{}, gross{};
    };

    // Every holder pays rate x mark a coin, accounts through their triggers.
    void fund(int v, int m, int i, F premiums, F at, Paid& paid) {
        const auto within = [](F x, float bound) { return larger(smaller(x, all(bound)), all(-bound)); };
        const F mean = premiums / float(P.every[v]);
        const F rate = within((mean + within(P.interest[v] - mean, P.clamp[v])) / P.divisor[v], P.cap[v]);
        const F per_coin = rate * exp_of(at);
        const F closed[2] = {summed(m, i, COINS), summed(m, i, COINS + 1)};
        const F longs = traders.value(2 * m, i) - closed[0], shorts = traders.value(2 * m + 1, i) + closed[1];
        paid.traders += per_coin * (longs + shorts);
        paid.rest += per_coin * (rest.value(m, i) + closed[0] - closed[1] - load(beside[m] + i));
        paid.makers += per_coin * makers.value(m, i);
        paid.gross += magnitude(per_coin) * (magnitude(longs) + magnitude(shorts));
        if (P.pool[m] >= 0) cash.add(P.pool[m], i, -per_coin * inventory.value(m, i));
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

    void give_up(I lane, unsigned which) {
        for (; which; which &= which - 1) {
            const int l = lane[__builtin_ctz(which)];
            known[l / L] &= uint16_t(~(1u << l % L));
        }
    }

    static I market_of(I key) { return whole((number(key) + 0.5f) * (1.0f / W)); }
    I asset_of(I key, I m) const { return key + (whole(of.asset.at(m)) - m) * W; }

    // The impact curve at the round's opening.
    Line line_of(I key, I m) {
        Line line;
        const I of_asset = asset_of(key, m);
        const F coefficient = of.coefficient.at(m);
        line.delta = P.delta, line.depth = gather(depth.data(), of_asset);
        line.per_adv = of.per_adv.at(m), line.per_adv_global = of.per_adv_global.at(m);
        line.u_local = left * gather(u_local.data(), key);
        line.u_global = left_global * gather(u_global.data(), of_asset);
        line.local = (1 - P.rho) * coefficient, line.everywhere = P.index_weight * P.rho * coefficient;
        // Where orders do not press, what they would have pressed counts for nothing.
        line.start_local = where(line.local > 0, gather(basis.data(), key) / line.local, F{});
        line.start_global = where(coefficient > 0, gather(push.data(), of_asset) / coefficient, F{});
        line.base = gather(index.data(), of_asset) - line.everywhere * line.start_global;
        return line;
    }

    // Where an order alone in its market and round leads.
    void leads(I key, const Line& line, const Line::End& end) {
        scatter(moved_to.data(), key, end.u_local * (1 / left));
        scatter(basis_after.data(), key, line.local * end.local);
    }

    template <int s> I too_far(const Line& line, const Line::End& end, F at, I m) const {
        constexpr float sign = s ? -1 : 1;
        return sign * (line.last(end) - (at + of.bound[s].at(m))) < 0;
    }

    // Close what a vector of markets and paths has triggered on one side.
    template <int s> [[gnu::flatten]] void close(I key) {
        constexpr float sign = s ? -1 : 1;
        const I m = market_of(key);
        const F at = gather(mark.data(), key), moved = shifted ? gather(shift.data(), key) : F{};
        F log = at;
        if (shifted) {
            const F less = moved * exp_of(-at) * of.rate[s].at(m);
            log += log_of(larger(1 - less, all(1e-3f)));
        }
        const I low = gather(reach[s].data(), key), there = P.position(-sign * log + of.barrier.at(m));
        const I high = where(there > low, there, low);
        scatter(reach[s].data(), key, high);
        scatter(next[s].data(), key, next_mark(s, m * 2 + s, high, moved, m));

        // The book, along the curve from the round's opening, at most to the take bound.
        const Sweep swept = sweep<s>(P, m, low, high);
        const F coins = swept.coins, usd = coins * exp_of(at);
        const Line line = line_of(key, m);
        const Line::End end = line.after(-sign * usd);
        leads(key, line, end);
        const F move = expm1_of(line.mean(end));
        const I odd = ~(move - move == 0), later = too_far<s>(line, end, at, m) & (coins > 0) & ~odd;
        if (const unsigned lost = bits(odd)) give_up(key - m * W, lost);

        const Remains left = settle<s, true>(P, of, swept, all(1.0f), move, of.fee.at(m) * (1 + move), moved);
        const F got = left.fees + of.keeps.at(m) * left.spare, earned = coins * (1 + move);
        F rows[L] = {};
        rows[USD + s] = usd, rows[COINS + s] = coins, rows[PAID] = sign * earned, rows[LACKED] = left.lack - got;
        rows[GROSS] = earned + left.lack + got, rows[ENDED] = swept.rows[ACCOUNTS];
        rows[OF_HOUR + ORDERED] = usd, rows[OF_HOUR + FLOW] = -sign * usd * line.depth;
        rows[OF_HOUR + RECEIVED] = got, rows[OF_HOUR + LACKING] = left.lack;
        if (unsigned some = bits(later)) {
            for (F& x : rows) x = where(later, F{}, x);
            for (; some; some &= some - 1) {
                const int l = __builtin_ctz(some);
                deferred[s].push_back({key[l], low[l], high[l], usd[l], 0, 0, 0, 0});
            }
        }
        enter(key, rows);
    }

    // Add what a vector of markets and paths has closed to the hour and the round.
    void enter(I key, F (&rows)[L]) {
        alignas(64) int32_t place[L];
        transpose(rows);
        store(place, key);
        for (int l = 0; l < L; ++l) {
            const float* mine = reinterpret_cast<const float*>(&rows[l]);
            float *hour = sums.data() + size_t(place[l]) * OF_HOUR, *now = round.data() + size_t(place[l]) * OF_ROUND;
            *reinterpret_cast<Eight*>(hour) += *reinterpret_cast<const Eight*>(mine);
            *reinterpret_cast<Four*>(now) += *reinterpret_cast<const Four*>(mine + OF_HOUR);
        }
    }

    // Deferred orders of one side, up to 16 at a time; places in a vector without one are nobody's.
    template <class Work> void by_vectors(std::vector<Deferred>& orders, Work work) {
        for (size_t j = 0; j < orders.size(); j += L) {
            Deferred some[L];
            const int many = int(std::min(orders.size() - j, size_t(L)));
            I key = I{} + B, low{}, high{};
            for (int l = 0; l < many; ++l) {
                some[l] = orders[j + l];
                key[l] = some[l].key, low[l] = some[l].low, high[l] = some[l].high;
            }
            work(&orders[j], many, key, low, high);
        }
    }
    // A number of each of these.
    static F of_each(const Deferred* orders, int many, float Deferred::* which) {
        F x{};
        for (int l = 0; l < many; ++l) x[l] = orders[l].*which;
        return x;
    }

    // What the book does not take of the round's orders goes to auctions, and then to pools.
    [[gnu::cold]] void go_behind() {
        fill_books<0>(), fill_books<1>();
        for (auto& orders : deferred)
            for (Deferred& x : orders) {
                const int m = x.market(), lane = x.lane(), f = P.pool[m];
                const float wanted = std::max(x.usd - x.book, 0.0f);
                x.auction = wanted * share(makers_left[m][lane], asked[m][lane]);
                x.takeover = std::max(wanted - x.auction, 0.0f);
                if (f >= 0) asked_of_pool[f][lane] += x.takeover;
            }
        for (auto& orders : deferred)
            for (Deferred& x : orders) {
                const int lane = x.lane(), i = lane / L * L, f = P.pool[x.market()];
                const float wanted = x.takeover;
                x.takeover = 0;
                if (f >= 0) {
                    const F room = larger(P.multiple[f] * equity_of(f, i) - held_by(f, i), F{});
                    x.takeover = wanted * share(room[lane % L], asked_of_pool[f][lane]);
                }
                if (std::max(wanted - x.takeover, 0.0f) > 0) known[lane / L] &= uint16_t(~(1u << lane % L));
            }
        settle_behind<0>(), settle_behind<1>();
        for (auto& orders : deferred) {
            for (const Deferred& x : orders) {
                const int m = x.market(), lane = x.lane();
                makers_left[m][lane] = std::max(makers_left[m][lane] - x.auction, 0.0f), asked[m][lane] = 0;
                if (P.pool[m] >= 0) asked_of_pool[P.pool[m]][lane] = 0;
            }
            orders.clear();
        }
    }

    // How much of an order the book takes, found by halving.
    template <int s> [[gnu::cold]] void fill_books() {
        constexpr float sign = s ? -1 : 1;
        by_vectors(deferred[s], [&](Deferred* orders, int many, I key, I, I) {
            const I m = market_of(key);
            const F at = gather(mark.data(), key);
            const Line line = line_of(key, m);
            F low{}, high = of_each(orders, many, &Deferred::usd);
            for (int turn = 0; turn < 24; ++turn) {
                const F middle = 0.5f * (low + high);
                const I over = too_far<s>(line, line.after(-sign * middle), at, m);
                low = where(over, low, middle), high = where(over, middle, high);
            }
            const Line::End end = line.after(-sign * low);
            leads(key, line, end);
            const F move = expm1_of(line.mean(end));
            for (int l = 0; l < many; ++l) {
                Deferred& x = orders[l];
                x.book = low[l], x.move = move[l];
                asked[x.market()][x.lane()] += std::max(x.usd - x.book, 0.0f);
            }
        });
    }

    template <int s> [[gnu::cold]] void settle_behind() {
        constexpr float sign = s ? -1 : 1;
        by_vectors(deferred[s], [&](Deferred* orders, int many, I key, I low, I high) {
            const I m = market_of(key);
            const F at = gather(mark.data(), key), moved = shifted ? gather(shift.data(), key) : F{};
            const F usd = of_each(orders, many, &Deferred::usd), safe = where(usd > 0, usd, all(1.0f));
            const F book = of_each(orders, many, &Deferred::book), in_book = book / safe;
            const F auction = of_each(orders, many, &Deferred::auction) / safe;
            const F takeover = of_each(orders, many, &Deferred::takeover) / safe;
            const F at_book = 1 + of_each(orders, many, &Deferred::move);
            const F at_auction = exp_of(at) * (1 - sign * of.discount.at(m));
            const F fixed = in_book + auction, moves = in_book * (at_book - 1) + auction * (at_auction - 1);
            const F fee = of.fee.at(m) * (in_book * at_book + auction * at_auction);

            const Sweep swept = sweep<s>(P, m, low, high);
            const Remains left = settle<s, false>(P, of, swept, fixed, moves, fee, moved);
            const F coins = swept.coins, got = left.fees + of.keeps.at(m) * left.spare;
            F bankruptcy = coins * (1 + moved);
            for (int c = 0; c < C; ++c) bankruptcy += swept.rows[2 * c + 1];
            const F by_makers = coins * auction, by_pool = coins * takeover;
            const F makers_paid = by_makers * at_auction, pool_paid = bankruptcy * takeover;
            const F earned = coins * in_book * at_book + makers_paid + pool_paid;
            F rows[L] = {};
            rows[USD + s] = book, rows[COINS + s] = coins, rows[PAID] = sign * earned;
            rows[LACKED] = left.lack - got, rows[GROSS] = earned + left.lack + got;
            rows[ENDED] = swept.rows[ACCOUNTS];
            rows[OF_HOUR + ORDERED] = usd, rows[OF_HOUR + FLOW] = -sign * book * gather(depth.data(), asset_of(key, m));
            rows[OF_HOUR + RECEIVED] = got, rows[OF_HOUR + LACKING] = left.lack;
            enter(key, rows);
            for (int l = 0; l < many; ++l) {
                const Deferred& x = orders[l];
                const int market = x.market(), lane = x.lane(), v = market / A, f = P.pool[market];
                auctioned[2 * market + s][lane] += x.auction, taken_over[2 * market + s][lane] += x.takeover;
                makers.add_one(market, lane, sign * by_makers[l]);
                makers_cash.add_one(v, lane, -sign * makers_paid[l]);
                inventory.add_one(market, lane, sign * by_pool[l]);
                if (f >= 0) cash.add_one(f, lane, -sign * pool_paid[l]);
                beside[market][lane] += sign * (by_makers[l] + by_pool[l]);
                beside_cash[v][lane] += sign * (makers_paid[l] + pool_paid[l]);
                if (by_pool[l] != 0) holds[lane / L] |= uint16_t(1u << lane % L);
            }
        });
    }

    // Equity of a pool, and what it holds of what it has taken over, at the marks [USD].
    F equity_of(int f, int i) {
        F equity = cash.value(f, i);
        for (int m = 0; m < M && holds[i / L]; ++m)
            if (P.pool[m] == f) equity += inventory.value(m, i) * exp_of(load(mark[m] + i));
        return equity;
    }
    F held_by(int f, int i) {
        F held{};
        for (int m = 0; m < M && holds[i / L]; ++m)
            if (P.pool[m] == f) held += magnitude(inventory.value(m, i)) * exp_of(load(mark[m] + i));
        return held;
    }

    // Value pools of 16 lanes, all of them or those that have paid.
    void observe(int i, bool every) {
        unsigned lost = 0;
        for (int f = 0; f < P.n.pools; ++f) {
            if (!every && !paying[f]) continue;
            const F equity = equity_of(f, i), top = larger(load(peak[f] + i), equity);
            store(peak[f] + i, top);
            store(drawdown[f] + i, larger(load(drawdown[f] + i), top - equity));
            store(fund_low[f] + i, smaller(load(fund_low[f] + i), equity));
            // Exhausted, or so far below the highest peak, which no rolling one exceeds, that deleveraging may be on.
            lost |= bits(~(equity > 1.0f)) | bits(~(equity < 3e38f));
            if (P.share[f] <= 1) lost |= bits(equity <= (1 - P.share[f]) * top);
        }
        known[i / L] &= uint16_t(~lost);
    }

    // Pools of 16 lanes sell what they have taken over, at most at their rates, without a take bound.
    [[gnu::cold]] void unwind(int i) {
        thin(i);
        uint16_t holding = 0;
        for (int a = 0; a < A; ++a) {
            F everywhere{};
            for (int v = 0; v < V; ++v) {
                const int m = v * A + a;
                const F held = inventory.value(m, i);
                const I some = held != 0;
                if (!bits(some) || P.pool[m] < 0) continue;
                const I key = IOTA + (m * W + i);
                const F price = exp_of(load(mark[m] + i));
                const F coins = where(some, signed_as(smaller(magnitude(held), P.unwind[m] / price), held), F{});
                const F flow = -coins * price;
                const Line line = line_of(key, I{} + m);
                const Line::End end = line.after(flow);
                const F earned = coins * exp_of(line.mean(end));
                inventory.add(m, i, -coins), cash.add(P.pool[m], i, earned);
                holding |= uint16_t(bits(inventory.value(m, i) != 0));
                store(beside[m] + i, load(beside[m] + i) - coins);
                store(beside_cash[v] + i, load(beside_cash[v] + i) - earned);
                store(gross[0] + i, load(gross[0] + i) + magnitude(earned));
                store(gross[1] + i, load(gross[1] + i) + magnitude(coins));
                everywhere += flow * line.depth;
                const F b = load(basis[m] + i), anew = where(some, line.local * end.local, b);
                store(u_local[m] + i, where(some, end.u_local * (1 / left), load(u_local[m] + i)));
                store(basis[m] + i, anew);
                widen(basis_low[m] + i, basis_high[m] + i, b), widen(basis_low[m] + i, basis_high[m] + i, anew);
            }
            press_globally(a, i, everywhere);
        }
        holds[i / L] = holding;
        for (int a = 0; a < A; ++a) own[a] = P.rho * load(push[a] + i);
        indices(i);
        for (int m = 0; m < M; ++m) store(mark[m] + i, quote_of(m, i));
        observe(i, true);
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
                if (at_first) store(first_round[m] + i, load(first_round[m] + i) + round[ORDERED]);
                const F before = load(used[m] + i), spent = before + round[ORDERED];
                lost |= bits(round[ORDERED] > larger(P.throughput[m] - before, F{}));
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
                store(u_local[m] + i, where(moved, u, was));
                const F anew = where(moved, b, old);
                widen(basis_low[m] + i, basis_high[m] + i, old), widen(basis_low[m] + i, basis_high[m] + i, anew);
                store(basis[m] + i, anew);
                if (P.pool[m] < 0) continue;
                receipts[P.pool[m]] += round[RECEIVED], deficits[P.pool[m]] += round[LACKING];
                paying[P.pool[m]] = 1;
            }
            if (pressed[a]) press_globally(a, i, everywhere);
        }
        for (int f = 0; f < P.n.pools; ++f) {
            if (!paying[f]) continue;
            store(received[f] + i, load(received[f] + i) + receipts[f]);
            store(lacked[f] + i, load(lacked[f] + i) + deficits[f]);
            cash.add(f, i, receipts[f]);
            lost |= bits(deficits[f] > larger(equity_of(f, i), F{}));
            cash.add(f, i, -deficits[f]);
        }
        known[g] &= uint16_t(~lost);
    }

    // What all venues together do to an asset's imbalance.
    void press_globally(int a, int i, F everywhere) {
        const I moved = everywhere != 0;
        const F was = load(u_global[a] + i), ug = left_global * was + everywhere * (1 / P.adv_global[a]);
        store(u_global[a] + i, where(moved, ug * (1 / left_global), was));
        const F p = signed_as(P.coefficient[a] * power(magnitude(ug), P.delta), ug);
        store(push[a] + i, where(moved, p, load(push[a] + i)));
    }

    // Take what a round has posted for a market and 16 lanes.
    void take_round(int m, int i, F (&x)[OF_ROUND]) {
        float* from = round.data() + (size_t(m) * W + i) * OF_ROUND;
        columns(from, x);
        for (int j = 0; j < OF_ROUND; ++j) store(from + j * L, F{});
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
                const F at = quote_of(m, i);
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
            if (!deferred[0].empty() || !deferred[1].empty()) go_behind();
            for (int i = 0; i < lanes; i += L)
                if (live[i / L]) press(i, !r), quote_again(i), observe(i, holds[i / L]);
        }
        for (int i = 0; i < lanes; i += L)
            if (holds[i / L]) unwind(i);
    }

    void new_hour() {
        for (int i = 0; i < lanes; i += L) {
            for (int a = 0; a < A; ++a)
                store(index_low[a] + i, load(index[a] + i)), store(index_high[a] + i, load(index[a] + i));
            for (int m = 0; m < M; ++m)
                store(basis_low[m] + i, load(basis[m] + i)), store(basis_high[m] + i, load(basis[m] + i));
            for (int f = 0; f < P.n.pools; ++f) store(fund_low[f] + i, equity_of(f, i));
        }
        for (int m = 0; m < M; ++m) std::fill_n(makers_left[m], W, P.capacity[m]);
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
            for (int s = 0; s < 2; ++s) {
                const int row = (v * 2 + s) * A + a;
                put_sum(to.traders, 2 * M, row, traders, 2 * m + s);
                put(to.auction, 2 * M, row, auctioned[2 * m + s]), put(to.takeover, 2 * M, row, taken_over[2 * m + s]);
            }
            put_sum(to.rest, M, m, rest, m), put_sum(to.makers, M, m, makers, m);
            put_sum(to.inventory, M, m, inventory, m);
            put(to.mark, M, m, mark[m]), put(to.basis_low, M, m, basis_low[m]), put(to.basis_high, M, m, basis_high[m]);
        }
        for (int v = 0; v < V; ++v) {
            put_sum(to.traders_cash, V, v, traders_cash, v), put_sum(to.rest_cash, V, v, rest_cash, v);
            put_sum(to.makers_cash, V, v, makers_cash, v);
        }
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
        for (auto* x : {&auctioned, &taken_over, &beside, &beside_cash}) x->fill(0);
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
                rest.add(m, i, x[COINS] - x[COINS + 1] - load(beside[m] + i));
                out(to.first_round, M, m, load(first_round[m] + i));
                paid += x[PAID], lack += x[LACKED], ended += x[ENDED];
                money += x[GROSS], coins += x[COINS] + x[COINS + 1];
                widen(basis_low[m] + i, basis_high[m] + i, load(basis[m] + i));
            }
            out(to.accounts, V, v, ended);
            traders_cash.add(v, i, paid), traders_cash.add(v, i, lack);
            rest_cash.add(v, i, load(beside_cash[v] + i) - paid);
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
