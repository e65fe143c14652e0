package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/klivvr/whisper/cmd/whisper/cli"
)

// completeCommand is what the scripts below call with the words so far; it prints one candidate a line,
// from the same model that parses, so the scripts never grow old.
const completeCommand = "__complete"

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help implements kong.HelpProvider.
func (c *completionCmd) Help() string {
	return `Examples:

    source <(whisper completion bash)
    whisper completion zsh > "${fpath[1]}/_whisper"
    whisper completion fish > ~/.config/fish/completions/whisper.fish`
}

var completionScripts = map[string]string{
	"bash": `_whisper() {
  local IFS=$'\n'
  COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _whisper whisper
`,
	"zsh": `#compdef whisper
_whisper() {
  local -a candidates
  candidates=("${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  compadd -a candidates || _files
}
if [ "$funcstack[1]" = "_whisper" ]; then _whisper "$@"; else compdef _whisper whisper; fi
`,
	"fish": `complete -c whisper -f -a '(whisper __complete (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
`,
}

func (c *completionCmd) Run(_ context.Context, p *cli.Process) error {
	_, err := io.WriteString(p.Stdout, completionScripts[c.Shell])
	return err
}

// complete prints what may stand in place of the last word.
func complete(w io.Writer, model *kong.Application, words []string) {
	if len(words) == 0 {
		words = []string{""}
	}
	node, last := model.Node, words[len(words)-1]
	var previous *kong.Flag
	for _, word := range words[:len(words)-1] {
		previous = valueless(node, word)
		if child := childOf(node, word); child != nil {
			node = child
		}
	}
	for _, candidate := range candidates(node, previous, strings.HasPrefix(last, "-")) {
		if strings.HasPrefix(candidate, last) {
			_, _ = fmt.Fprintln(w, candidate)
		}
	}
}

// valueless is the flag that a word names and whose value is the next word.
func valueless(node *kong.Node, word string) *kong.Flag {
	for _, level := range node.AllFlags(true) {
		for _, flag := range level {
			if word == "--"+flag.Name && !flag.IsBool() {
				return flag
			}
		}
	}
	return nil
}

func childOf(node *kong.Node, name string) *kong.Node {
	for _, child := range node.Children {
		if child.Name == name {
			return child
		}
	}
	return nil
}

func candidates(node *kong.Node, valueOf *kong.Flag, flags bool) []string {
	var out []string
	switch {
	case valueOf != nil && valueOf.Enum != "":
		return valueOf.EnumSlice()
	case valueOf != nil:
		return nil
	case flags:
		for _, level := range node.AllFlags(true) {
			for _, flag := range level {
				out = append(out, "--"+flag.Name)
			}
		}
		return out
	}
	for _, child := range node.Children {
		if !child.Hidden {
			out = append(out, child.Name)
		}
	}
	for _, arg := range node.Positional {
		if arg.Enum != "" {
			out = append(out, arg.EnumSlice()...)
		}
	}
	return out
}
