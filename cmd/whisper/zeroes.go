package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/klivvr/whisper/cmd/whisper/cli"
)

// zeroes complains of every number and duration that is 0 though it means nothing there: what takes a setting of 0
// for none given would go on with its default, and nobody would know. Where 0 means something the flag says so, by
// the tag zero. Flags that the command complains of itself are left to it.
func zeroes(parsed *kong.Context, errs []error) error {
	told := map[string]bool{}
	for _, err := range cli.Flatten(errors.Join(errs...)) {
		name, _, _ := strings.Cut(err.Error(), ":")
		told[name] = true
	}
	var found []error
	for _, group := range parsed.Selected().AllFlags(false) {
		for _, flag := range group {
			// A default that is a number other than 0, perhaps with a unit.
			byDefault := strings.ContainsAny(flag.Default[:min(1, len(flag.Default))], "123456789")
			if !byDefault || !flag.Target.CanInt() || !flag.Target.IsZero() || flag.Tag.Has("zero") || told[flag.Name] {
				continue
			}
			found = append(found, fmt.Errorf("%s: must be greater than 0", flag.Name))
		}
	}
	return errors.Join(found...)
}
