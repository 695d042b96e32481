/** The completion script for bash (4.4 or newer). It needs nothing of the package bash-completion. */
import { shellQuote } from '../../lib/format.ts';
import { argumentBranches, commandSubjects, optionBranches, WHERE_OPTIONS } from './cases.ts';
import { posixCases } from './posix-case.ts';
import type { CommandNode } from './tree.ts';

export function bashScript(tree: readonly CommandNode[]): string {
  return `# bash completion for netbus, made by "netbus completion bash"

${posixCases('_netbus_option', optionBranches(tree))}
${posixCases('_netbus_argument', argumentBranches(tree))}
_netbus_is_command() {
  case "$1 $2" in
    ${commandSubjects(tree).map(shellQuote).join(' | ')}) return 0 ;;
  esac
  return 1
}

# Sets commands and options to the words that may follow.
_netbus_words() {
  commands=() options=()
  case "$1" in
${tree.map(wordsOf).join('')}  esac
}
${RUNTIME}`;
}

function wordsOf({ path, commands, flags }: CommandNode): string {
  const words = (list: readonly { name: string }[]) => list.map(({ name }) => shellQuote(name)).join(' ');
  return `    ${shellQuote(path)}) commands=(${words(commands)}) options=(${words(flags)}) ;;\n`;
}

const RUNTIME = `
_netbus() {
  # Bash splits words at "=" and ":", too. What stands together on the line is one word again here.
  local rest=\${COMP_LINE:0:COMP_POINT} words=() spaces piece i
  for ((i = 0; i <= COMP_CWORD; i++)); do
    piece=\${COMP_WORDS[i]}
    spaces=\${rest%%[![:space:]]*}
    rest=\${rest#"$spaces"}
    [[ $rest == "$piece"* ]] || piece=$rest
    rest=\${rest#"$piece"}
    if ((i == 0)) || [[ -n $spaces ]]; then words+=("$piece"); else words[-1]+=$piece; fi
  done

  local path='' kind='' value='' prefix='' word position=0 ended='' where=() seen=() commands options
  local last=$((\${#words[@]} - 1)) current=\${words[-1]}
  for ((i = 1; i < last; i++)); do
    word=\${words[i]}
    kind=''
    if [[ -n $ended ]]; then
      ((position++))
    elif [[ $word == -- ]]; then
      ended=1
    elif [[ $word == --*=* ]]; then
      _netbus_where "\${word%%=*}" "\${word#*=}"
    elif [[ $word == -* ]]; then
      _netbus_option "$path" "$word"
      if [[ -n $kind ]]; then
        ((i++))
        ((i < last)) && { _netbus_where "$word" "\${words[i]}"; kind=''; }
      else
        seen+=("$word")
      fi
    elif ((position == 0)) && _netbus_is_command "$path" "$word"; then
      path=\${path:+$path }$word
    else
      ((position++))
    fi
  done

  COMPREPLY=()
  if [[ -n $kind ]]; then
    value=$current
    _netbus_values
  elif [[ -z $ended && $current == --*=* ]]; then
    prefix=\${current%%=*}=
    value=\${current#*=}
    _netbus_option "$path" "\${current%%=*}"
    _netbus_values
  elif [[ -z $ended && $current == -* ]]; then
    _netbus_words "$path"
    COMPREPLY=($(compgen -W "\${options[*]}" -- "$current"))
  else
    _netbus_words "$path"
    ((position > 0)) || COMPREPLY=($(compgen -W "\${commands[*]}" -- "$current"))
    value=$current
    for word in "\${seen[@]}"; do
      [[ -n $kind ]] || _netbus_argument "$path $word" $((position + 1))
    done
    [[ -n $kind ]] || _netbus_argument "$path" $((position + 1))
    _netbus_values
  fi

  # Readline replaces only what stands behind the last "=" or ":" where it splits words there.
  local breaks='' keep=''
  [[ $COMP_WORDBREAKS == *=* ]] && breaks+='='
  [[ $COMP_WORDBREAKS == *:* ]] && breaks+=':'
  [[ -n $breaks ]] && keep=\${current%"\${current##*[$breaks]}"}
  COMPREPLY=("\${COMPREPLY[@]#"$keep"}")
}

# Adds what fits value, by its kind.
_netbus_values() {
  local found=()
  case $kind in
    names*)
      mapfile -t found < <("\${words[0]/#\\~\\//$HOME/}" __complete "\${where[@]}" \${kind#names } -- "$value" 2>/dev/null)
      found=("\${found[@]%%$'\\t'*}")
      # A list goes on behind a comma.
      [[ $kind == 'names hosts' ]] && compopt -o nospace 2>/dev/null
      ;;
    choices*) found=($(compgen -W "\${kind#choices }" -- "$value")) ;;
    # Readline's own, which know quotes and "~".
    files) compopt -o default 2>/dev/null ;;
    folders) compopt -o dirnames 2>/dev/null ;;
  esac
  COMPREPLY+=("\${found[@]/#/"$prefix"}")
}

# Remembers which daemon is meant.
_netbus_where() {
  case $1 in
    ${WHERE_OPTIONS.join(' | ')}) where+=("$1" "\${2/#\\~\\//$HOME/}") ;;
  esac
}

complete -F _netbus netbus
`;
