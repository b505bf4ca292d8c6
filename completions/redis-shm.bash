# Completion of redis-shm for bash: in /usr/share/bash-completion/completions/redis-shm, or read with `. redis-shm.bash`.
# What there is to complete is what --help of the very program says.

# The options of a command, a line each: "--name" or "--name ARGUMENT".
_redis_shm_options() {
	"$1" "$2" --help 2>/dev/null | awk '/^ *-/ {
		while (match($0, /^ *(-[A-Za-z0-9], )?--[a-z0-9-]+( [A-Z][A-Z:]*)?/)) {
			option = substr($0, 1, RLENGTH)
			$0 = substr($0, RLENGTH + 1)
			sub(/^ *(-[A-Za-z0-9], )?/, "", option)
			print option
		}
	}'
}

_redis_shm_commands() {
	"$1" --help 2>/dev/null | awk '/^Commands:/ { on = 1; next } /^$/ { on = 0 } on { print $1 }'
}

# What may follow an option: words, or files and the like. False: it takes nothing.
_redis_shm_values() {
	local program=$1 command=$2 option=$3 cur=$4 argument head=
	case $option in
	-h) argument=HOST ;;
	-s) argument=PATH ;;
	-p | -a | -n) argument=TEXT ;;
	*) argument=$(_redis_shm_options "$program" "$command" | awk -v option="$option" '$1 == option { print $2; exit }') ;;
	esac
	[ -n "$argument" ] || return 1
	case $cur in *,*) head=${cur%,*}, ;; esac # of a list, the last element
	case $option in
	--transport) COMPREPLY=($(compgen -P "$head" -W $'tcp\nunix\nshm' -- "${cur##*,}")) ;;
	--wait | --mode) COMPREPLY=($(compgen -P "$head" -W $'adaptive\npoll\nblock' -- "${cur##*,}")) ;;
	*)
		case $argument in
		FILE | PATH) COMPREPLY=($(compgen -f -- "$cur")) && compopt -o filenames 2>/dev/null ;;
		DIR) COMPREPLY=($(compgen -d -- "$cur")) && compopt -o filenames 2>/dev/null ;;
		HOST) COMPREPLY=($(compgen -A hostname -- "$cur")) ;;
		esac
		;;
	esac
	return 0
}

_redis_shm() {
	local IFS=$' \t\n' cur=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		COMPREPLY=($(compgen -W "$(_redis_shm_commands "$1") --help --version" -- "$cur"))
		return
	fi
	case $command in -*) return ;; esac
	IFS=$'\n'
	case $previous in
	-*) _redis_shm_values "$1" "$command" "$previous" "$cur" && return ;;
	esac
	IFS=$' \t\n'
	COMPREPLY=($(compgen -W "$(_redis_shm_options "$1" "$command" | awk '{ print $1 }')" -- "$cur"))
}

complete -F _redis_shm redis-shm
