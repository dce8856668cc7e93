"""A slow twin for every kernel, of the same name, written from the papers with plain loops.

Imports nothing from the package. ``tests/test_house.py`` fails when a compiled function has no twin here.
"""

import math

import numpy as np

SIDE = 64


# --- PDQ ----------------------------------------------------------------------------------------------------------


def box_pass(n, outputs):
    """Rows of the matrix of one clipped box pass along n samples."""
    window = (n + 127) // 128
    half = (window + 2) // 2
    matrix = np.zeros((len(outputs), n))
    for row, o in enumerate(outputs):
        low, high = max(0, o - (window - half)), min(n - 1, o + half - 1)
        matrix[row, low : high + 1] = 1 / (high - low + 1)
    return matrix


def unfolding(n, scale):
    """Full-size samples from means of ``scale`` of them: the parabola through three means that keeps each mean."""
    samples = -(-n // scale)
    matrix = np.zeros((n, samples))
    for k in range(n):
        at = k // scale
        below, above = max(0, at - 1), min(samples - 1, at + 1)
        t = (k % scale + 0.5) / scale - 0.5
        mean_of_squares = sum(((z + 0.5) / scale - 0.5) ** 2 for z in range(scale)) / scale
        bend = (t * t - mean_of_squares) / 2
        matrix[k, at] += 1 - 2 * bend
        matrix[k, below] += bend - t / 2
        matrix[k, above] += bend + t / 2
    return matrix


def band(n, resampled, scale, mirrored):
    """Smoothing, sampling and all that is folded into them, as a dense matrix [64, samples]. Rows sum to 1."""
    length = resampled or n
    sampled = [int((i + 0.5) * length / SIDE) for i in range(SIDE)]
    over_seen = box_pass(length, sampled) @ box_pass(length, range(length))
    if resampled:  # nearest neighbour: seen sample k is pixel k * n // resampled
        over_pixels = np.zeros((SIDE, n))
        for k in range(length):
            over_pixels[:, k * n // resampled] += over_seen[:, k]
    else:
        over_pixels = over_seen
    if mirrored:
        over_pixels = over_pixels[:, ::-1]
    return over_pixels @ unfolding(n, scale) if scale > 1 else over_pixels


def row_plan(matrices):
    """One dense matrix from each plan; the second plan's outputs come from the other end."""
    return [matrix if p == 0 else matrix[::-1] for p, matrix in enumerate(matrices)]


def column_plan(matrix, channel_weights):
    """The dense matrix over interleaved channels."""
    return np.kron(matrix, np.asarray(channel_weights)[None, :])


def reduce(pixels, row_matrices, column_matrices):
    """R @ pixels @ C.T for each pair of matrices."""
    return [rows @ pixels.astype(float) @ columns.T for rows in row_matrices for columns in column_matrices]


def basis():
    """Rows 1 to 16 of the 64-point DCT."""
    return [
        [math.sqrt(2 / SIDE) * math.cos(math.pi / (2 * SIDE) * (i + 1) * (2 * j + 1)) for j in range(SIDE)]
        for i in range(16)
    ]


def quality(square):
    """PDQ's quality of a 64x64 picture."""
    total = 0
    for i in range(SIDE):
        for j in range(SIDE):
            for below, right in ((1, 0), (0, 1)):
                if i + below < SIDE and j + right < SIDE:
                    total += abs(int((square[i][j] - square[i + below][j + right]) * 100 / 255))
    return min(100, total // 90)


def coefficients(square):
    """The 16x16 block of low frequencies."""
    d = np.array(basis())
    return d @ np.asarray(square) @ d.T


def pdq_bits(square):
    """The 32 bytes of a 64x64 picture, its quality, and how far each bit was from the median."""
    block = np.round(coefficients(square) * 2**20) / 2**20
    values = sorted(block.ravel())
    median = values[127]
    text = "".join("1" if value > median else "0" for value in block.ravel()[::-1])
    margins = np.abs(coefficients(square).ravel() - median)
    return int(text, 2).to_bytes(32, "big"), quality(square), margins


def luma_real(pixels):
    """PDQ's luma of RGB or grey pixels."""
    pixels = np.asarray(pixels, float)
    return pixels if pixels.ndim == 2 else pixels @ [0.299, 0.587, 0.114]


def square_of(pixels, profile="full"):
    """The 64x64 picture that PDQ transforms."""
    grey = luma_real(pixels)
    height, width = grey.shape
    resampled = 512 if profile == "512" and max(height, width) > 512 else 0
    return band(height, resampled, 1, 0) @ grey @ band(width, resampled, 1, 0).T


def pdq(pixels, profile="full"):
    """A whole hash: bytes, quality, margins."""
    return pdq_bits(square_of(pixels, profile))


# --- pHash --------------------------------------------------------------------------------------------------------


def luma(pixels):
    """Pillow's mode L of RGB pixels."""
    height, width = pixels.shape[:2]
    grey = np.zeros((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            red, green, blue = (int(sample) for sample in pixels[y, x])
            grey[y, x] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    return grey


def lanczos_weights(n, origin, extent):
    """Lists of (first sample, whole weights in 2**-22) for 32 outputs."""

    def sinc(x):
        return 1.0 if x == 0 else math.sin(x * math.pi) / (x * math.pi)

    scale = extent / 32
    stretch = max(1.0, scale)
    rows = []
    for i in range(32):
        centre = origin + (i + 0.5) * scale
        low = max(0, int(centre - 3 * stretch + 0.5))
        high = min(n, int(centre + 3 * stretch + 0.5))
        at = [(k - centre + 0.5) / stretch for k in range(low, high)]
        values = [sinc(x) * sinc(x / 3) if -3 <= x < 3 else 0.0 for x in at]
        rows.append((low, [math.floor(value / sum(values) * 2**22 + 0.5) for value in values]))
    return rows


def thumbnail(grey, rows, columns, down_first):
    """32x32 by two passes of whole-number weights, each rounded to 8 bits."""

    def across(picture, weights):
        lines = []
        for line in picture:
            totals = [sum(int(line[low + k]) * w for k, w in enumerate(ws)) + 2**21 for low, ws in weights]
            lines.append([min(255, max(0, total >> 22)) for total in totals])
        return np.array(lines, np.uint8)

    if down_first:
        return across(across(grey.T, rows).T, columns)
    return across(across(grey, columns).T, rows).T


def phash_bits(small):
    """8 bytes of a 32x32 thumbnail."""
    d = [[2 * math.cos(math.pi * k * (2 * n + 1) / 64) for n in range(32)] for k in range(8)]
    block = np.round(np.array(d) @ small.astype(float) @ np.array(d).T * 2**20)
    values = sorted(block.ravel())
    text = "".join("1" if 2 * value > values[31] + values[32] else "0" for value in block.ravel())
    return int(text, 2).to_bytes(8, "big")


# --- borders ------------------------------------------------------------------------------------------------------


def borders(pixels, tolerance, spared, most_percent, edge):
    """Lines of border at the top, bottom, left and right of [h, w, 1 or 3 or 4] pixels, their levels and noise."""
    whole = pixels.astype(int)
    plane = whole[:, :, 0] if whole.shape[2] == 1 else luma(pixels[:, :, :3]).astype(int)
    rows = []
    for lines in (plane, plane[::-1], plane.T, plane.T[::-1]):
        count, length = lines.shape
        three = lines[0, [0, length // 2, length - 1]]
        level = (2 * int(lines[0].sum()) + length) // (2 * length)
        off = abs(lines - level)
        busy = [(line > tolerance).sum() > length * spared // 1000 for line in off]
        uniform = busy.index(True) if True in busy else count
        if three.max() - three.min() > 2 * tolerance or uniform == 0:
            rows.append((0, 0, 0))
            continue
        apart = off[uniform : uniform + 8].sum(1).tolist()
        blurred = next((j for j, difference in enumerate(apart) if difference * 100 >= max(apart) * edge), 0)
        border_lines = -1 if uniform > count * most_percent // 100 else uniform + blurred
        rows.append((border_lines, level, off[0].sum() * 1000 // length))
    return tuple(list(part) for part in zip(*rows, strict=True))


# --- distance -----------------------------------------------------------------------------------------------------


def distance(left, right):
    """Differing bits of two rows of words."""
    return sum((int(a) ^ int(b)).bit_count() for a, b in zip(left, right, strict=True))


def pairs(left, right):
    return [distance(a, b) for a, b in zip(left, right, strict=True)]


def one_to_many(query, entries):
    return [distance(query, entry) for entry in entries]


def all_pairs(left, right):
    return [[distance(a, b) for b in right] for a in left]


def within(queries, entries, radius):
    """Every (query, entry, distance) of at most ``radius`` bits."""
    return [
        (q, row, distance(query, entry))
        for q, query in enumerate(queries)
        for row, entry in enumerate(entries)
        if distance(query, entry) <= radius
    ]


def count_pairs(left, right, skip, left_pictures, right_pictures, unordered, bins, room):
    """The histogram of least distances, and the closest (distance, picture, picture). ``left``: views of each picture.

    Row k of ``right`` is not counted with picture p where ``skip[p][0] <= k < skip[p][1]``.
    """
    histogram, closest = [0] * bins, []
    for p, views in enumerate(left):
        for k, row in enumerate(right):
            if not skip[p][0] <= k < skip[p][1]:
                apart = min(distance(view, row) for view in views)
                histogram[apart] += 1
                pair = (int(left_pictures[p]), int(right_pictures[k]))
                closest.append((apart, *(sorted(pair) if unordered else pair)))
    return histogram, sorted(closest)[:room]


# --- multi-index hashing ------------------------------------------------------------------------------------------


def bits_of(words, low, width):
    """``width`` bits of a hash from bit ``low`` on; bit 0 is the lowest of the first word."""
    whole = sum(int(word) << (64 * w) for w, word in enumerate(words))
    return (whole >> low) % 2**width


def partition(hashes, low, width, next_low):
    """One band's table: (value, row, sketch) by rising value, then row. The sketch is 16 bits from ``next_low`` on."""
    return sorted((bits_of(h, low, width), row, bits_of(h, next_low, 16)) for row, h in enumerate(hashes))


def probe(queries, entries, bands, radius, most_candidates, most_verified, at_once):
    """What a search of the tables finds, by comparing with every entry instead.

    ``bands``: (low, width, next_low, quota, reach) of each. Returns the results (query, row, distance); the queries
    that are given up; lists that are not empty, candidates in them and candidates past the sketch, over all queries.
    The second bound is looked at each time ``at_once`` candidates have come together.
    """
    finds, given_up, lists, candidates, verified = [], [], 0, 0, 0
    for q, query in enumerate(queries):
        looked_at, here, past = set(), 0, 0
        for i, (low, width, next_low, quota, reach) in enumerate(bands):
            for entry in entries:
                differs = (bits_of(query, low, width) ^ bits_of(entry, low, width)).bit_count()
                beside = (bits_of(query, next_low, 16) ^ bits_of(entry, next_low, 16)).bit_count()
                if differs < quota:
                    looked_at.add((i, bits_of(entry, low, width)))
                    here += 1
                    past += differs + beside <= reach
        lists, candidates = lists + len(looked_at), candidates + here
        if here > most_candidates or past // at_once * at_once > most_verified:
            given_up.append(q)
            continue
        verified += past
        finds += [(q, row, apart) for _, row, apart in within([query], entries, radius)]
    return finds, given_up, (lists, candidates, verified)


def near_sketches(sketches, start, sketch, limit):
    """A number whose bit k is set where sketch ``start + k`` is within ``limit`` bits of ``sketch``, for 32 of them."""
    return sum(2**k for k in range(32) if (int(sketches[start + k]) ^ sketch).bit_count() <= limit)


def lowest_bit(word):
    """The number of the lowest bit that is set."""
    return next(bit for bit in range(64) if word >> bit & 1)


# --- results ------------------------------------------------------------------------------------------------------


def group_by_picture(results, entry_ids, query_rows, pictures, views, top_k, count):
    """Rows of (distance, entry id, view), one for each of ``count`` pictures."""
    best = [{} for _ in range(count)]
    for query, row, distance_in_bits in results:
        picture, entry = int(pictures[query_rows[query]]), int(entry_ids[row])
        seen_as = (int(distance_in_bits), int(views[query_rows[query]]))
        best[picture][entry] = min(seen_as, best[picture].get(entry, seen_as))
    return [sorted((apart, entry, view) for entry, (apart, view) in row.items())[:top_k] for row in best]
