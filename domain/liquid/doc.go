// Package liquid is the language of Whisper's texts: Shopify's Liquid without what could surprise a bank. It owns parsing,
// rendering, filters and the formats of locales. It knows nothing of a template's record, a delivery or a channel, and
// does no I/O except loading a time zone through a function that it is given.
//
// It promises:
//   - Strict. A text with a syntax error, an unknown tag or filter, a wrong argument or an unknown part of the user does
//     not parse. A variable without a value is an error when the text is rendered, wherever a value is needed; a test
//     ({% if name %}, ==, !=) and the filter default need none. There is never half a text.
//   - Bounded. A render has a budget of steps ([MaxSteps]), counted and not timed, so a text fails the same way on every
//     machine. A step is a node, an argument, a pass of a loop, a filter, 64 bytes that a filter makes, or 256 bytes of
//     JSON that are searched. All steps together take 0.3 ms, and the most expensive ones (searches through 8 KiB of
//     variables) 3 ms. Values, output, nesting and the length of a source are bounded, too. There is no include, no
//     file, no recursion.
//   - Exact. What a text needs of the request ([Text.Needs]), and whether it differs from user to user ([Text.PerUser]),
//     follow from its tree, not from a guess. Numbers keep the digits that upstream gave.
//   - A parsed text is immutable; any number of goroutines render it.
//
// # Why not a library as it is
//
// One Go library of Liquid is maintained: github.com/osteele/liquid (v1.9.2 of August 2026). The others are forks of it,
// young, or render only a part. It was tried first. These promises can't be added around it:
//   - It compiles expressions to closures, so nothing can be read from a parsed text: which variables, which filters,
//     whether there is any user.…
//   - A filter that does not exist is found only when its branch is rendered.
//   - Its switch for strict variables also refuses {% if name %} and default.
//   - An empty loop over (1..10000000) takes seconds, a larger one runs without end, and append in a loop takes all the
//     memory: nothing counts, and no context is checked.
//   - "{{ name" without its end is printed as it is; 120.50 becomes 120.5, because it passes through a float64.
//   - The first argument of a filter can't be a named one, which plural needs.
//   - All variables must be decoded before the first is printed. A text with four placeholders takes 27 allocations and
//     about twice the time, even if they are decoded already, where this package takes 3; a condition with a loop takes
//     45, here 23 (go test -bench 'Render|Oracle' ./domain/liquid).
//
// What would be left of the library is a regular expression that finds tokens. So this package parses and runs the
// language itself, and osteele/liquid is its oracle: a test renders random texts of the common subset with both, and they
// agree (oracle_test.go lists the known differences).
//
// golang.org/x/text knows digits, separators, grouping, percent, symbols of currencies, their decimals and the plural
// rules. It always puts the symbol of a currency before the number, has no dates, takes Latin digits for ar-EG where CLDR
// has Arabic ones, and writes U+200E, U+200F and U+061C around signs. So dates come from
// github.com/go-playground/locales (CLDR, v0.14.2 of September 2026; only the locales in locales.go are linked), and the
// side of the symbol and the digits from CLDR's lists (locales.go, format.go). Direction marks are left out: a text has
// those that its author wrote, and no others.
package liquid

// The bounds of a text.
const (
	MaxSteps       = 10_000   // of all texts of one [Run] together
	MaxSourceBytes = 32 << 10 // of a text as it is written
	MaxValueBytes  = 64 << 10 // of what a filter or a capture makes
	MaxDepth       = 16       // of blocks in blocks
	maxProblems    = 10       // more are not told
	bytesPerStep   = 64       // that a filter makes
	searchedBytes  = 256      // of JSON, per step
	countedBytes   = 8        // beyond ASCII, of a text whose characters are counted, per step
)
