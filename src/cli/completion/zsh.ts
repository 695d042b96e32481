/** The completion script for zsh (5 or newer): a file `_netbus` in a folder of `$fpath`, or text to `source` behind `compinit`. */
import { shellQuote } from '../../lib/format.ts';
import { argumentBranches, commandSubjects, optionBranches, WHERE_OPTIONS } from './cases.ts';
import { posixCases } from './posix-case.ts';
import type { CommandNode } from './tree.ts';

export function zshScript(tree: readonly CommandNode[]): string {
  return `#compdef netbus
# zsh completion for netbus, made by "netbus completion zsh"

${posixCases('_netbus_option', optionBranches(tree))}
${posixCases('_netbus_argument', argumentBranches(tree))}
_netbus_is_command() {
  case "$1 $2" in
    ${commandSubjects(tree)
      .map((subject) => `'${subject}'`)
      .join(' | ')}) return 0 ;;
  esac
  return 1
}

# Sets commands and options to what may follow: "word:description".
_netbus_words() {
  commands=() options=()
  case "$1" in
${tree.map(wordsOf).join('')}  esac
}
${RUNTIME}`;
}

function wordsOf({ path, commands, flags }: CommandNode): string {
  const list = (items: CommandNode['flags']) => items.map((item) => `\n        ${described(item)}`).join('');
  return `    '${path}')\n      commands=(${list(commands)})\n      options=(${list(flags)})\n      ;;\n`;
}

/** As `_describe` takes it: a colon of the word itself is escaped. */
function described({ name, description }: CommandNode['flags'][number]): string {
  return shellQuote(`${name.replaceAll(':', '\\:')}:${description}`);
}

const RUNTIME = `
_netbus() {
  local netbus_path='' kind='' word current=\${words[CURRENT]} ended=''
  local -a where seen commands options
  integer i position=0

  for ((i = 2; i < CURRENT; i++)); do
    word=\${(Q)words[i]}
    kind=''
    if [[ -n $ended ]]; then
      ((position += 1))
    elif [[ $word == -- ]]; then
      ended=1
    elif [[ $word == --*=* ]]; then
      _netbus_where "\${word%%=*}" "\${word#*=}"
    elif [[ $word == -* ]]; then
      _netbus_option "$netbus_path" "$word"
      if [[ -n $kind ]]; then
        ((i += 1))
        if ((i < CURRENT)); then
          _netbus_where "$word" "\${(Q)words[i]}"
          kind=''
        fi
      else
        seen+=("$word")
      fi
    elif ((position == 0)) && _netbus_is_command "$netbus_path" "$word"; then
      netbus_path=\${netbus_path:+$netbus_path }$word
    else
      ((position += 1))
    fi
  done

  if [[ -n $kind ]]; then
    _netbus_values
  elif [[ -z $ended && $current == --*=* ]]; then
    _netbus_option "$netbus_path" "\${current%%=*}"
    compset -P '*='
    _netbus_values
  elif [[ -z $ended && $current == -* ]]; then
    _netbus_words "$netbus_path"
    _describe -o 'option' options
  else
    _netbus_words "$netbus_path"
    ((position == 0 && $#commands > 0)) && _describe 'verb' commands
    for word in $seen; do
      [[ -n $kind ]] || _netbus_argument "$netbus_path $word" $((position + 1))
    done
    [[ -n $kind ]] || _netbus_argument "$netbus_path" $((position + 1))
    _netbus_values
  fi
}

# Offers what the kind says.
_netbus_values() {
  local line
  local -a found program choices
  case $kind in
    names*)
      program=(\${~words[1]})
      for line in \${(f)"$($program[1] __complete $where \${kind#names } -- "\${(Q)PREFIX}" 2>/dev/null)"}; do
        found+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}")
      done
      # A list goes on behind a comma.
      if [[ $kind == 'names hosts' ]]; then _describe 'hosts' found -S ''; else _describe "\${kind#names }" found; fi
      ;;
    choices*)
      choices=(\${=kind#choices })
      _describe 'value' choices
      ;;
    files) _files ;;
    folders) _files -/ ;;
  esac
}

# Remembers which daemon is meant.
_netbus_where() {
  case $1 in
    ${WHERE_OPTIONS.join(' | ')}) where+=("$1" "\${2/#\\~\\//$HOME/}") ;;
  esac
}

# As a file of $fpath this is the function itself.
if [[ $funcstack[1] == _netbus ]]; then _netbus "$@"; else compdef _netbus netbus; fi
`;
