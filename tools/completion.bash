# bash completion for vramd. It asks the program (vramd --help, vramd COMMAND --help), so that it
# offers what the installed version knows, and holds no list of its own.

# Reads --help; prints the words that may follow flag, or "-" where it takes none, or "" for a
# value that is not one of a few.
_vramd_values() { # flag
    awk -v flag="$1" '
        function value(from,   i) { # the word after the flag and its other spellings
            for (i = from; i <= NF && $i ~ /^-/; i++) ;
            return $i
        }
        /^usage:/ || /^       vramd/ || /^  -/ {
            if (found) exit
            for (i = 1; i <= NF; i++) {
                word = $i
                gsub(/[][,|]/, "", word)
                if (word != flag) continue
                found = 1
                takes = value(i + 1)
                gsub(/[][,|]/, "", takes)
                next
            }
        }
        found { text = text " " $0 }
        END {
            if (takes !~ /^[A-Z]+$/) { print "-"; exit }
            if (takes != "WORD" || !match(text, /\[[^]]*; default/)) exit
            text = substr(text, RSTART + 1, RLENGTH - 10)
            gsub(/,/, " ", text)
            print text
        }'
}

_vramd() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} help words
    # bash takes "--flag=value" apart at "=".
    if [[ $cur == '=' ]]; then
        cur=
    elif [[ $prev == '=' ]]; then
        prev=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        words=$("$1" --help 2> /dev/null | sed -nE 's/^  ([a-z]+) .*/\1/p')
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
    fi
    help=$("$1" "${COMP_WORDS[1]}" --help 2> /dev/null) || return
    case ${COMP_WORDS[1]}$prev in # names that --help does not list as the words of an option
        plan--device) words=$("$1" plan --list-devices 2> /dev/null | awk '/GiB/ && $1 ~ /[0-9]/ { print $1 }') ;;
        plan--weights)
            # "--weights TYPE  ...: bf16, Q8_0, ...": the words with a digit, up to the first "..." or ";".
            words=$(tr '\n' ' ' <<< "$help" | sed -E 's/.*[^[]--weights//; s/(\.\.\.|;).*//' | grep -oE '[A-Za-z][A-Za-z0-9_-]*[0-9][A-Za-z0-9_-]*') ;;
        quantize--type) # "--type TYPE  ...: F32, BF16, ... or Q2_K."
            words=$(tr '\n' ' ' <<< "$help" | sed -E 's/.*[^[]--type TYPE//; s/\..*//' | grep -oE '\b[A-Z]+[0-9][A-Z0-9_]*') ;;
        *) words= ;;
    esac
    if [[ $words ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
    fi
    if [[ $prev == -* ]]; then
        words=$(_vramd_values "$prev" <<< "$help")
        if [[ $words != - ]]; then # none: a file name, by -o default below
            [[ $words ]] && mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
            return
        fi
    fi
    [[ $cur == -* ]] || return
    words=$(grep -E '^(usage:|       vramd|  -)' <<< "$help" | grep -oE -- '(^|[][ ,|])--?[a-z][a-z0-9-]*' | tr -d '][ ,|')
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -o default -F _vramd vramd
