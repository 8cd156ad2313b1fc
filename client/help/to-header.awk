# The help texts named as macros of a C header: NAME.txt is HELP_NAME, and what stands behind its line "Examples:", that
# line included, is HELP_NAME_EXAMPLES.
function begin(name) {
    if (NR > 1)
        print ""
    printf "#define HELP_%s", name
}
FNR == 1 {
    name = FILENAME
    sub(/.*\//, "", name)
    sub(/\.txt$/, "", name)
    gsub(/-/, "_", name)
    name = toupper(name)
    begin(name)
    blank = ""
}
$0 == "Examples:" {
    begin(name "_EXAMPLES")
    blank = ""
}
/^$/ { # at the end of a text it goes
    blank = blank "\\n"
    next
}
{
    gsub(/\\/, "&&")
    gsub(/"/, "\\\"")
    printf " \\\n    \"%s%s\\n\"", blank, $0
    blank = ""
}
END {
    print ""
}
