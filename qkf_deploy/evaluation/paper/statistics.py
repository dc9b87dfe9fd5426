"""Expectation and variance of attention sums with firing rates as Bernoulli parameters (Eq. 15-20, Figure 4)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Moments:
    """Expectation and variance of one attention sum."""

    mean: float
    variance: float


def token_attention(head_size: int, rate_q: float) -> Moments:
    """Q-K token attention: a sum of ``head_size`` independent spikes of rate f_Q."""
    return Moments(head_size * rate_q, head_size * rate_q * (1 - rate_q))


def self_attention(head_size: int, tokens: int, rate_q: float, rate_k: float, rate_v: float) -> Moments:
    """SSA as the paper takes it: N x d independent products of rate p = f_Q f_K f_V (the scale left out)."""
    p, terms = rate_q * rate_k * rate_v, head_size * tokens
    return Moments(terms * p, terms * p * (1 - p))


def self_attention_shared(head_size: int, tokens: int, rate_q: float, rate_k: float, rate_v: float) -> Moments:
    """SSA with independent spikes of Q, K and V, but the products sharing them, as they do in one element.

    S = sum_i q_i sum_m k_mi v_m. E[S^2] has d pairs i = i' and d (d - 1) pairs i != i'; within each, N pairs m = m' and
    N (N - 1) pairs m != m'.
    """
    d, n, q, k, v = head_size, tokens, rate_q, rate_k, rate_v
    apart = n * (n - 1) * k * k * v * v
    same_column = q * (n * k * v + apart)
    other_column = q * q * (n * k * k * v + apart)
    mean = n * d * q * k * v
    return Moments(mean, d * same_column + d * (d - 1) * other_column - mean * mean)


def largest_token_variance(head_size: int) -> float:
    """At f_Q = 1/2."""
    return token_attention(head_size, 0.5).variance


def largest_self_variance(head_size: int, tokens: int) -> float:
    """Of :func:`self_attention`: at f_Q f_K f_V = 1/2."""
    return self_attention(head_size, tokens, 1.0, 1.0, 0.5).variance
