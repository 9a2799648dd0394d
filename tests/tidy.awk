# tidy.awk - the house rules, over C and shell files named on the command line.
#
# Names are relative to the root of the checkout.  Prints "rule<TAB>file:line: what"
# for each violation; tidy.sh has the list of rules.
#
# It is no C parser: comments, strings and preprocessor lines are blanked, then
# braces are counted.
#
# SPDX-License-Identifier: MIT

BEGIN {
        floor["disk"] = 0
        floor["async"] = 1
        floor["meta"] = 2
        floor["ops"] = 3
        MAX_FILE = 700
        MAX_FUNCTION = 70
        MAX_COLUMNS = 100
        AWAIT = "(^|[^A-Za-z0-9_])CO_(AWAIT|TRY|UNDO)[ \t]*\\("
        SPEAKS = "(^|[^A-Za-z0-9_])(g_print|g_printerr|g_log|g_message|g_warning|g_error|" \
                 "g_critical|g_info|g_debug|printf|fprintf|dprintf|vprintf|vfprintf|puts|fputs|" \
                 "putchar|perror|exit|_exit|_Exit|quick_exit|abort)[ \t]*\\("
}

function complain(rule, what)
{
        print rule "\t" name ":" FNR ": " what
}

# What the compiler sees of line, strings and characters emptied; comments are
# dropped.  in_comment goes on to the next line.
function code_of(line,    out, c, next_c, i, quote)
{
        out = ""
        for (i = 1; i <= length(line); i++) {
                c = substr(line, i, 1)
                next_c = substr(line, i + 1, 1)
                if (in_comment) {
                        if (c == "*" && next_c == "/") {
                                in_comment = 0
                                i++
                        }
                } else if (quote != "") {
                        if (c == "\\")
                                i++
                        else if (c == quote) {
                                quote = ""
                                out = out c
                        }
                } else if (c == "/" && next_c == "*") {
                        in_comment = 1
                        i++
                } else if (c == "/" && next_c == "/") {
                        break
                } else {
                        if (c == "\"" || c == "'")
                                quote = c
                        out = out c
                }
        }
        return out
}

# Which house a path belongs to: a floor's number, 4 for the door, "glue", or "".
function place_of(path,    part)
{
        split(path, part, "/")
        if (part[1] == "hv-glue")
                return "glue"
        if (part[1] != "driver")
                return ""
        if (part[3] == "")
                return 4
        return part[2] in floor ? floor[part[2]] : "none"
}

function check_include(line,    target, room, part)
{
        if (line !~ /^[ \t]*#[ \t]*include[ \t]*["<]/)
                return
        target = line
        sub(/^[^"<]*["<]/, "", target)
        sub(/[">].*/, "", target)
        split(target, part, "/")
        room = part[1]

        if (place == "glue" && (room in floor || target ~ /(^|\/)driver\//))
                complain("glue", "hv-glue/ must not include " target)
        if (place == "" || place == "glue")
                return
        if (!(room in floor)) {
                if (line ~ /"/ && target ~ /\//)
                        complain("floors", "driver/ includes \"floor/file.h\", not " target)
                return
        }
        if (floor[room] > place)
                complain("floors", "floor " place " must not include the higher " target)
        if (place == 1 && room == "disk")
                complain("floors", "async/ knows no qcow2: must not include " target)
}

# One line of code of driver/ or hv-glue/, preprocessor lines left out.
function check_code(code,    i, c)
{
        awaits = code
        await_count = gsub(AWAIT, "(", awaits)
        if (await_count > 1)
                complain("await-line", "more than one await on a line: one case label")

        for (i = 1; i <= length(code); i++) {
                c = substr(code, i, 1)
                if (c == "{") {
                        open_brace()
                } else if (c == "}") {
                        close_brace()
                } else if (c == ";") {
                        # for (;;) keeps the head together
                        if (paren == 0)
                                head = ""
                } else {
                        paren += (c == "(") - (c == ")")
                        head = head c
                        if (c == "(" && await_count && in_switch() &&
                            head ~ /(^|[^A-Za-z0-9_])CO_(AWAIT|TRY|UNDO)[ \t]*\($/)
                                complain("await-switch", "await inside a switch: " \
                                         "its case label belongs to the wrong one")
                }
        }
        head = head " "
}

function open_brace()
{
        if (depth == 0 && head ~ /\)[ \t]*$/ && head !~ /=/) {
                function_line = FNR
                function_name = head
                sub(/[ \t]*\(.*/, "", function_name)
                sub(/.*[ \t*]/, "", function_name)
        }
        is_switch[depth] = head ~ /(^|[^A-Za-z0-9_])switch[ \t]*\(.*\)[ \t]*$/
        depth++
        head = ""
        paren = 0
}

function close_brace(    lines)
{
        if (depth > 0)
                depth--
        if (depth == 0 && function_line) {
                lines = FNR - function_line - 1
                if (lines > MAX_FUNCTION)
                        complain("function-length", function_name "() has " lines \
                                 " lines, at most " MAX_FUNCTION " are allowed")
                function_line = 0
        }
        head = ""
        paren = 0
}

function in_switch(    i)
{
        for (i = 0; i < depth; i++)
                if (is_switch[i])
                        return 1
        return 0
}

function end_file()
{
        if (name == "")
                return
        if ((place != "") && lines_seen > MAX_FILE)
                print "file-length\t" name ":" lines_seen ": " lines_seen \
                      " lines, at most " MAX_FILE " are allowed"
        if (!licensed)
                print "licence\t" name ":1: no SPDX-License-Identifier: MIT"
}

FNR == 1 {
        end_file()
        name = FILENAME
        sub(/^\.\//, "", name)
        place = place_of(name)
        is_c = name ~ /\.[ch]$/
        licensed = in_comment = in_macro = depth = function_line = paren = 0
        head = ""
        if (place == "none")
                complain("floors", "driver/ has no such floor")
}

{
        lines_seen = FNR
        if ($0 ~ /SPDX-License-Identifier: MIT/)
                licensed = 1
        if ($0 ~ /[ \t\r]$/)
                complain("whitespace", "trailing whitespace")
        if (is_c && $0 ~ /\t/)
                complain("whitespace", "tab; the house indents by 8 spaces")
        columns = $0
        gsub(/[\200-\277]/, "", columns)        # UTF-8 continuation bytes
        if (length(columns) > MAX_COLUMNS)
                complain("columns", length(columns) " columns, at most " MAX_COLUMNS \
                         " are allowed")
        if ($0 ~ /(^|[^A-Za-z0-9_])(TODO|FIXME)([^A-Za-z0-9_]|$)/ && name !~ /tests\/tidy\./)
                complain("unfinished", "finish it, or say in the README what is missing")
}

is_c && place != "" {
        check_include($0)
        code = code_of($0)
        if (in_macro || code ~ /^[ \t]*#/) {
                in_macro = $0 ~ /\\$/
                if (code ~ AWAIT && name != "driver/async/co.h")
                        complain("await-macro", "awaits are written out, for these rules to see")
        } else {
                check_code(code)
        }
        if (place != "glue" && code ~ SPEAKS)
                complain("silence", "the driver neither prints nor exits")
}

END {
        end_file()
}
