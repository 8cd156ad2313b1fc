# Make a manual page of a help page. Arguments: the list of commands and topics (`blipline help`), then the page.
# Variables: name (of the command, topic or daemon; "" for blipline itself), section, version, date.
# base/page.h says what help pages look like; console/cli.c, client/cmd_help.c and base/options.c write the headings.

# Text as roff takes it.
function escape(s) {
    gsub(/\\/, "\\e", s)
    gsub(/-/, "\\-", s)
    gsub(/\001/, "\\-", s)
    gsub(/`/, "\\(ga", s)
    gsub(/'/, "\\(aq", s)
    gsub(/\^/, "\\(ha", s)
    gsub(/~/, "\\(ti", s)
    return s
}

function guard(s) {
    return s ~ /^[.']/ ? "\\&" s : s
}

# Filled text, in source lines of up to 78 bytes.
function put_text(s,    words, n, i, line, w) {
    n = split(s, words, / +/)
    line = ""
    for (i = 1; i <= n; i++) {
        w = escape(words[i])
        if (w == "")
            continue
        if (line != "" && length(line) + 1 + length(w) > 78) {
            print guard(line)
            line = w
        } else
            line = line == "" ? w : line " " w
    }
    if (line != "")
        print guard(line)
}

function indent_of(s) {
    match(s, /^ */)
    return RLENGTH
}

# Where the text of an item begins in its line, counted from 0; 0: it is none.
function column_of(s,    from) {
    from = indent_of(s) + 1
    if (!match(substr(s, from), /[^ ]  +[^ ]/))
        return 0
    return from + RSTART + RLENGTH - 3
}

function put_item(tag, text) {
    begun = 1
    print ".TP"
    print "\\fB" escape(tag) "\\fR"
    put_text(text)
}

function end_literal() {
    if (literal)
        print ".EE"
    literal = 0
}

function put_literal(s) {
    if (!literal)
        print begun ? ".PP\n.EX" : ".EX"
    literal = begun = 1
    print guard(escape(s))
}

function trim(s) {
    gsub(/^ +| +$/, "", s)
    return s
}

# Lines i.. that begin at `column`, joined.
function gather(column,    text) {
    text = ""
    while (i < n && L[i + 1] != "" && indent_of(L[i + 1]) == column)
        text = text " " trim(L[++i])
    return text
}

function heading(s) {
    return s == "Options:" || s == "Examples:" || s == "Commands:" || s == "Topics:" || s == "Exit codes:" ||
           s == "Configuration keys with their defaults:"
}

# Of the overview: what the commands and topics are about.
FNR == NR {
    if ($0 ~ /^  [a-z-]+  +/ && !about_ended) {
        current = $1
        line = $0
        sub(/^  [a-z-]+ +/, "", line)
        about[current] = line
    } else if ($0 ~ /^   +[^ ]/ && !about_ended)
        about[current] = about[current] " " trim($0)
    if ($0 ~ /^Examples:/)
        about_ended = 1
    next
}

{ L[++n] = $0 }

END {
    what = name in about ? about[name] : "captions for piles of pictures with BLIP-2"
    title = name == "" ? "blipline" : name in about ? "blipline-" name : name
    for (i = 1; i <= n; i++)
        if (index(L[i], name " - ") == 1 && !(name in about)) {
            what = substr(L[i], length(name) + 4)
            sub(/\.$/, "", what)
            L[i] = ""
        }
    printf ".TH %s %s \"%s\" \"Blipline %s\" \"Blipline\"\n.SH NAME\n", escape(toupper(title)), section, date, version
    put_text(title " \001 " what)
    i = 1
    if (L[1] ~ /^Usage: /) {
        print ".SH SYNOPSIS"
        put_text(substr(L[1], 8) gather(7))
        i++
    } else if (L[1] ~ /^[A-Z ]+$/)
        i = 2
    print ".SH DESCRIPTION"
    for (; i <= n; i++) {
        s = L[i]
        if (s == "") {
            end_literal()
            continue
        }
        if (heading(s)) { # begun: a space above the first paragraph of a section would be too much
            end_literal()
            examples = s == "Examples:"
            print ".SH " toupper(substr(s, 1, length(s) - 1))
            begun = 0
        } else if (s ~ /^\[[a-z]+\]$/) {
            end_literal()
            print ".SS " s
            begun = 0
        } else if (!examples && s ~ /^ +-/) { # an option, its text beside it or below
            end_literal()
            c = column_of(s)
            if (c)
                put_item(trim(substr(s, 1, c)), substr(s, c + 1) gather(c))
            else
                put_item(trim(s), gather(indent_of(L[i + 1])))
        } else if (!examples && s ~ /^  ?/ && s ~ /^ / && (c = column_of(s))) {
            end_literal()
            put_item(trim(substr(s, 1, c)), substr(s, c + 1) gather(c))
        } else if (!examples && indent_of(s) == 4 && indent_of(L[i + 1]) == 8 && s !~ /\\$/) { # a key of a recipe
            end_literal()
            put_item(trim(s), gather(8))
        } else if (s ~ /^# /) { # a key of a daemon: its meaning stands above it
            end_literal()
            text = substr(s, 3)
            while (L[i + 1] ~ /^# / && L[i + 1] !~ / must be given$/)
                text = text " " substr(L[++i], 3)
            put_item(L[++i], text)
        } else if (s ~ /^ /) {
            put_literal(substr(s, 3))
        } else {
            end_literal()
            if (begun)
                print ".PP"
            text = s
            while (i < n && L[i + 1] != "" && L[i + 1] !~ /^[ #\[]/ && !heading(L[i + 1]))
                text = text " " L[++i]
            put_text(text)
            begun = 1
        }
    }
    end_literal()
    print ".SH SEE ALSO"
    if (name == "")
        print ".BR blipline\\-caption (1),\n.BR blipline\\-models (7),\n.BR blipline\\-broker (8)"
    else
        print ".BR blipline (1)"
}
