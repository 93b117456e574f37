# Completions of poolcp for bash 4 and later. Made by `poolcp --generate complete-bash`.

# Whole words.
_poolcp_words() {
    mapfile -t COMPREPLY < <(compgen -P "$before" -W "$*" -- "$cur")
}

# Words with commas between them: the last one.
_poolcp_list() {
    local done=
    [[ $cur == *,* ]] && done=${cur%,*},
    mapfile -t COMPREPLY < <(compgen -P "$before$done" -W "$*" -- "${cur##*,}")
    compopt -o nospace
}

_poolcp_directories() {
    compopt -o filenames +o default +o bashdefault
    mapfile -t COMPREPLY < <(compgen -P "$before" -d -- "$cur")
}

_poolcp_files() {
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -P "$before" -f -- "$cur")
}

# A number, or something else that nobody can guess.
_poolcp_nothing() {
    compopt +o default +o bashdefault
}

_poolcp() {
    local cur=${COMP_WORDS[COMP_CWORD]} option='' before='' word
    COMPREPLY=()
    # After -- everything is an operand, and completed by bash itself.
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        [[ $word == -- ]] && return
    done
    ((COMP_CWORD > 1)) && option=${COMP_WORDS[COMP_CWORD-1]}
    # bash takes --name=value for three words, unless COMP_WORDBREAKS has been changed.
    if [[ $cur == '=' ]]; then
        option+='=' cur=''
    elif [[ $option == '=' ]]; then
        option=${COMP_WORDS[COMP_CWORD-2]}=
    elif [[ $cur == --*=* ]]; then
        option=${cur%%=*}= before=${cur%%=*}= cur=${cur#*=}
    fi
    case $option in
        @VALUES@
    esac
    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '@OPTIONS@' -- "$cur")
        [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
    fi
}

complete -o default -o bashdefault -F _poolcp poolcp
