# add-figures.awk - lines that differ in their numbers become one, numbers added up.
#
# SPDX-License-Identifier: MIT
{
        count = split($0, words, /[0-9]+/)
        rest = $0
        for (i = 1; i < count; i++) {
                text[i] = words[i]
                match(rest, /[0-9]+/)
                sum[i] += substr(rest, RSTART, RLENGTH)
                rest = substr(rest, RSTART + RLENGTH)
        }
        text[count] = words[count]
}

END {
        if (NR == 0)
                exit
        for (i = 1; i < count; i++)
                printf "%s%d", text[i], sum[i]
        print text[count]
}
