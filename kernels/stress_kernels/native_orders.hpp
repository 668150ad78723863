// Orders of a vector of markets and paths: where they lead, what they pay, and what accounts have left.
#pragma once

#include "native_tables.hpp"

namespace {

// Part of a demand that a capacity serves.
static inline float share(float capacity, float demand) {
    return demand > capacity ? std::max(capacity, 0.0f) / demand : 1;
}

// Where orders of a vector of markets and paths lead from the round's opening, and what they pay.
struct Line {
    float delta;
    F depth, per_adv, per_adv_global, u_local, u_global, local, everywhere, start_local, start_global, base;

    struct End {
        F by_local, by_global, u_local, local, everywhere;  // `local`, `everywhere`: of the imbalances, to the power
    };
    End after(F flow) const {
        const F by_local = flow * depth * per_adv, by_global = flow * depth * per_adv_global;
        const F after_local = u_local + by_local, after_global = u_global + by_global;
        const F end_local = signed_as(power(magnitude(after_local), delta), after_local);
        return {by_local, by_global, after_local, end_local,
                signed_as(power(magnitude(after_global), delta), after_global)};
    }
    F last(const End& end) const { return base + everywhere * end.everywhere + local * end.local; }
    F mean(const End& end) const {
        return base + everywhere * mean_push(u_global, end.by_global, start_global, end.everywhere) +
               local * mean_push(u_local, end.by_local, start_local, end.local);
    }
    // Mean of |u|^delta with its sign over [u, u + du], given that at u and at u + du, as `price.mean_power`.
    F mean_push(F u, F du, F start, F end) const {
        const I small = (magnitude(du) < 0.03f * magnitude(u)) | (du == 0);
        const F x = du / where(u == 0, all(1.0f), u), d = all(delta);
        const F tail = 1 + (d - 2) * x * 0.25f * (1 + (d - 3) * x * 0.2f);
        const F series = 1 + d * x * 0.5f * (1 + (d - 1) * x * (1 / 3.0f) * tail);
        const F swept = magnitude(u + du) * magnitude(end) - magnitude(u) * magnitude(start);
        return where(small, start * series, swept / ((delta + 1) * where(small, all(1.0f), du)));
    }
};

// A range of rungs that one side of a market of a path closes in a round, by class, and what that is.
struct Sweep {
    I m, low, high;
    F rows[L], coins;
};

// What the accounts of a sweep have left or lack [USD].
struct Remains {
    F lack{}, fees{}, spare{};
};

// An order of which the book does not take all, and where it goes.
struct Deferred {
    int32_t key, low, high;
    float usd, book, move, auction, takeover;
    int market() const { return key / W; }
    int lane() const { return key % W; }
};

// What lies between places on ladders.
template <int s> static inline Sweep sweep(const Parameters& P, I m, I low, I high) {
    Sweep swept{m, low, high, {}, {}};
    alignas(64) int32_t from[L], to[L];
    const I first = (m * 2 + s) * P.n.rungs;
    store(from, (first + low) * COLUMNS), store(to, (first + high) * COLUMNS);
    for (int l = 0; l < L; ++l) swept.rows[l] = load(P.rows + to[l]) - load(P.rows + from[l]);
    transpose(swept.rows);
    for (int c = 0; c < C; ++c) swept.coins += swept.rows[2 * c];
    return swept;
}

// Accounts come by bankruptcy price: bankrupt, short of the fee, whole, class by class.
// `fixed` is the share of a slice that is closed at a price known in advance, `moves` that price less 1, times the
// share; the rest leaves no equity. ALL_FIXED where that share is 1.
template <int s, bool ALL_FIXED>
static inline Remains settle(const Parameters& P, const Markets& of, const Sweep& swept, F fixed, F moves, F fee,
                             F moved) {
    constexpr float sign = s ? -1 : 1;
    const I m = swept.m, low = swept.low, high = swept.high, ladder = m * 2 + s;
    const F safe = ALL_FIXED ? all(1.0f) : where(fixed > 0, fixed, all(1.0f));
    const F level = (ALL_FIXED ? moves : where(fixed > 0, moves / safe, F{})) - moved;
    const F fee_of_fixed = ALL_FIXED ? fee : fee / safe;
    const F zero = -sign * log_of(larger(1 + level, all(1e-3f)));
    const F full = -sign * log_of(larger(1 + level - sign * fee_of_fixed, all(1e-3f)));
    const F past_low = P.depth_of(number(low) + 0.5f), past_high = P.depth_of(number(high) - 0.5f);
    const auto left_of = [&](F q, F x) {
        const F left = sign * (q * level - x);
        return ALL_FIXED ? left : fixed * left;
    };
    Remains all_of;
    for (int c = 0; c < C; ++c) {
        const F quantity = swept.rows[2 * c], value = swept.rows[2 * c + 1], margin = of.margin[s * C + c].at(m);
        const F to_zero = zero + sign * margin, to_full = full + sign * margin;
        const I partial = of.partial[s * C + c].at(m) != 0;
        if (!bits(to_full >= past_low)) {
            const F due = fee * quantity;
            all_of.fees += due;
            all_of.spare += where(partial, F{}, larger(left_of(quantity, value) - due, F{}));
            continue;
        }
        // What the class holds up to a depth, of all it holds; inside the sweep its table says.
        const auto up_to = [&](F depth, F& q, F& x) {
            const I every = depth >= past_high, inside = (depth >= past_low) & ~every;
            q = where(every, quantity, F{}), x = where(every, value, F{});
            if (!bits(inside)) return;
            I rung = P.position(depth);
            rung = where(rung < low, low, rung), rung = where(rung > high, high, rung);
            const float* t = P.rows + 2 * c;
            const I start = (ladder * P.n.rungs + low) * COLUMNS, stop = start + (rung - low) * COLUMNS;
            q = where(inside, gather(t, stop) - gather(t, start), q);
            x = where(inside, gather(t + 1, stop) - gather(t + 1, start), x);
        };
        F q0, x0, q1, x1;
        up_to(to_zero, q0, x0), up_to(to_full, q1, x1);
        all_of.lack += larger(-left_of(q0, x0), F{});
        const F q = quantity - q1, x = value - x1, due = fee * q;
        const F short_of_fee = larger(left_of(q1 - q0, x1 - x0), F{});
        all_of.fees += where(partial, fee * (quantity - q0), due + short_of_fee);
        all_of.spare += where(partial, F{}, larger(left_of(q, x) - due, F{}));
    }
    return all_of;
}

}  // namespace
