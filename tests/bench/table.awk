# table.awk - samples to figures.
#
# Lines of input: name, "ours" or "peer", value, unit, separated by tabs; one a run.
# A figure is the median.  The ratio says how many times better we are: less is
# better for times, more for everything else.
#
#   -v tsv=1   name, ours, peer, ratio, unit, separated by tabs; "-" for no peer
#
# In the table a spread (max - min) of more than a fifth of the median is shown.
#
# SPDX-License-Identifier: MIT

BEGIN {
        FS = "\t"
        SPREAD_SHOWN = 0.2
        if (!tsv)
                print row("", "ours", "peer", "ratio", "unit", "")
}

{
        if (!($1 in unit)) {
                names[++name_count] = $1
                unit[$1] = $4
        }
        sample[$1, $2, ++samples[$1, $2]] = $3 + 0
}

# Sorts the samples of a side and gives their median.
function median(name, side,    n, i, j, v)
{
        n = samples[name, side]
        for (i = 2; i <= n; i++) {
                v = sample[name, side, i]
                for (j = i - 1; j > 0 && sample[name, side, j] > v; j--)
                        sample[name, side, j + 1] = sample[name, side, j]
                sample[name, side, j + 1] = v
        }
        i = int((n + 1) / 2)
        j = n % 2 ? i : i + 1
        return (sample[name, side, i] + sample[name, side, j]) / 2
}

# Three to four digits that mean something.
function digits(v)
{
        if (v >= 100)
                return sprintf("%.0f", v)
        if (v >= 1)
                return sprintf("%.2f", v)
        return sprintf("%.4f", v)
}

# After median(): its spread as text, or nothing when it is small.
function spread(name, side, middle,    low, high)
{
        low = sample[name, side, 1]
        high = sample[name, side, samples[name, side]]
        if (high - low <= SPREAD_SHOWN * middle)
                return ""
        return sprintf("  %s %s..%s", side, digits(low), digits(high))
}

function row(name, ours, peer, ratio, unit, note)
{
        return sprintf("%-38s %10s %10s %8s  %-6s%s", name, ours, peer, ratio, unit, note)
}

END {
        for (i = 1; i <= name_count; i++) {
                name = names[i]
                ours = median(name, "ours")
                note = spread(name, "ours", ours)
                peer = ratio = "-"
                if (samples[name, "peer"] > 0) {
                        peer = median(name, "peer")
                        note = note spread(name, "peer", peer)
                        # What ran too short to be measured has no ratio.
                        if (ours > 0 && peer > 0)
                                ratio = unit[name] ~ /^m?s$/ ? peer / ours : ours / peer
                }
                if (tsv)
                        printf "%s\t%s\t%s\t%s\t%s\n", name, sprintf("%.6g", ours),
                                peer == "-" ? peer : sprintf("%.6g", peer),
                                ratio == "-" ? ratio : sprintf("%.4g", ratio), unit[name]
                else
                        print row(name, digits(ours), peer == "-" ? peer : digits(peer),
                                  ratio == "-" ? ratio : digits(ratio) "x", unit[name], note)
        }
}
