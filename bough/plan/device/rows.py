"""Kernels that order the rows of a page table and find what neighbours share."""

from __future__ import annotations

import triton
import triton.language as tl

# Columns between two stored hashes.
STEP = tl.constexpr(16)


@triton.jit
def num_columns(seq_lens, row, mask, PAGE_SIZE: tl.constexpr, MAX_PAGES: tl.constexpr):
    """Pages of some requests, 0 where masked; a length beyond the table ends with it."""
    length = tl.load(seq_lens + row, mask=mask, other=0)
    return tl.minimum((tl.maximum(length, 0) + PAGE_SIZE - 1) // PAGE_SIZE, MAX_PAGES)


@triton.jit
def hash_prefixes(
    table,
    seq_lens,
    hashes,
    num_rows,
    PAGE_SIZE: tl.constexpr,
    MAX_PAGES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum up a hash of each (page, column); keep the sum at every STEP-th column.

    `hashes` is [MAX_PAGES // STEP, num_rows] int64: entry [b, r] stands for the first
    `(b + 1) * STEP` pages of row r.
    """
    row = tl.program_id(0).to(tl.int64)
    last = num_columns(seq_lens, row, True, PAGE_SIZE, MAX_PAGES) // STEP
    total = tl.zeros([1], tl.int64)
    for first in range(0, last, BLOCK):
        offs_step = first + tl.arange(0, BLOCK)
        column = offs_step[:, None] * STEP + tl.arange(0, STEP)[None, :]
        mask_step = offs_step < last
        page = tl.load(
            table.ptr + row * table.stride_row + column, mask=mask_step[:, None], other=0
        )
        mixed = _mix(page, column)  # [BLOCK, STEP]
        sums = tl.where(mask_step, tl.sum(mixed, 1), 0)
        tl.store(
            hashes + offs_step.to(tl.int64) * num_rows + row,
            total + tl.cumsum(sums, 0),
            mask=mask_step,
        )
        total += tl.sum(sums, 0)


@triton.jit
def _mix(page, column):
    """Spread a page at its column over 64 bits (Steele et al. 2014, SplitMix)."""
    word = (page.to(tl.int64) << 32) | column.to(tl.int64)
    word = word.to(tl.uint64, bitcast=True) * 0x9E3779B97F4A7C15
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB
    return (word ^ (word >> 31)).to(tl.int64, bitcast=True)


@triton.jit
def order_rows(
    table,
    seq_lens,
    hashes,
    order,
    num_rows,
    PAGE_SIZE: tl.constexpr,
    MAX_PAGES: tl.constexpr,
    NUM_HALVINGS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Place a row behind all that precede it: by pages, then by length, then by index.

    Equal prefixes so stand together, and of rows that share pages and end in them the longest
    stands last. Two rows first differ in a column found by halving over stored hashes, then by
    comparing STEP pages.
    """
    row = tl.program_id(0)
    length = tl.load(seq_lens + row)
    columns = num_columns(seq_lens, row, True, PAGE_SIZE, MAX_PAGES)
    offs_step = tl.arange(0, STEP)
    rank = 0
    for first in range(0, num_rows, BLOCK):
        other = first + tl.arange(0, BLOCK)
        mask = other < num_rows
        other_columns = num_columns(seq_lens, other, mask, PAGE_SIZE, MAX_PAGES)
        common = tl.minimum(columns, other_columns)
        low = tl.zeros_like(common)
        high = common // STEP
        for _ in range(NUM_HALVINGS):
            middle = (low + high + 1) // 2
            at = tl.maximum(middle - 1, 0).to(tl.int64) * num_rows
            is_open = low < high
            own = tl.load(hashes + at + row, mask=is_open, other=0)
            theirs = tl.load(hashes + at + other, mask=is_open, other=0)
            is_equal = own == theirs
            low = tl.where(is_open & is_equal, middle, low)
            high = tl.where(is_open & (is_equal == 0), middle - 1, high)
        # [BLOCK, STEP]
        column = low[:, None] * STEP + offs_step[None, :]
        mask_page = column < common[:, None]
        own_ptr = table.ptr + row.to(tl.int64) * table.stride_row
        own_page = tl.load(own_ptr + column, mask=mask_page, other=0)
        page_ptrs = table.ptr + other.to(tl.int64)[:, None] * table.stride_row + column
        page = tl.load(page_ptrs, mask=mask_page, other=0)
        differs = mask_page & (page != own_page)
        nearest = tl.min(tl.where(differs, offs_step[None, :], STEP), 1)
        is_nearest = differs & (offs_step[None, :] == nearest[:, None])
        has_smaller_page = tl.max((is_nearest & (page < own_page)).to(tl.int32), 1) > 0
        other_length = tl.load(seq_lens + other, mask=mask, other=0)
        is_shorter = (other_length < length) | ((other_length == length) & (other < row))
        is_before = tl.where(nearest < STEP, has_smaller_page, is_shorter)
        rank += tl.sum((mask & is_before).to(tl.int32), 0)
    tl.store(order + rank, row)


@triton.jit
def find_shared(
    table,
    seq_lens,
    order,
    shared,
    num_rows,
    PAGE_SIZE: tl.constexpr,
    MAX_PAGES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Count the pages that each row in order shares with the one before it, page by page.

    `shared` is [num_rows + 1], -1 at both ends.
    """
    place = tl.program_id(0)
    count = -1
    if (place > 0) & (place < num_rows):
        upper = tl.load(order + place - 1).to(tl.int64)
        lower = tl.load(order + place).to(tl.int64)
        count = tl.minimum(
            num_columns(seq_lens, upper, True, PAGE_SIZE, MAX_PAGES),
            num_columns(seq_lens, lower, True, PAGE_SIZE, MAX_PAGES),
        )
        first = 0
        while first < count:
            column = first + tl.arange(0, BLOCK)
            mask = column < count
            page = tl.load(table.ptr + upper * table.stride_row + column, mask=mask, other=0)
            below = tl.load(table.ptr + lower * table.stride_row + column, mask=mask, other=0)
            count = tl.min(tl.where(mask & (page != below), column, count), 0)
            first += BLOCK
    tl.store(shared + place, count)
