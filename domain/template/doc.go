// Package template renders texts from templates and variables. A [Template] has the texts of all locales and channels
// of one record of whisper.templates. It is parsed and bounded, so that rendering can neither run for long nor use much
// memory. Package liquid is the language.
package template
