// Package template makes texts from templates and variables: one [Template] is the texts of all locales and channels of
// one record of whisper.templates, parsed and bounded, so that rendering can neither run for long nor grow without end.
// Package liquid is the language.
package template
