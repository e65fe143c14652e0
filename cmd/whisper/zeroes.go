package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/klivvr/whisper/cmd/whisper/cli"
)

// zeroes complains of every number and duration that is set to 0 where 0 means nothing. In a Config 0 means the default, so
// the process would silently start with it. Where 0 means something the flag says so, with the tag zero.
// Flags that the command complains of itself are left to it.
func zeroes(parsed *kong.Context, errs []error) error {
	told := map[string]bool{}
	for _, err := range cli.Flatten(errors.Join(errs...)) {
		name, _, _ := strings.Cut(err.Error(), ":")
		told[name] = true
	}
	var found []error
	for _, group := range parsed.Selected().AllFlags(false) {
		for _, flag := range group {
			// A number other than 0, perhaps with a unit.
			byDefault := strings.ContainsAny(flag.Default, "123456789")
			zero := flag.Target.CanInt() && flag.Target.Int() == 0 || flag.Target.CanFloat() && flag.Target.Float() == 0 // -0, too
			if !byDefault || !zero || flag.Tag.Has("zero") || told[flag.Name] {
				continue
			}
			found = append(found, fmt.Errorf("%s: must be greater than 0", flag.Name))
		}
	}
	return errors.Join(found...)
}
