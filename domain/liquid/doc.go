// Package liquid is the language of Whisper's texts: Shopify's Liquid without what could surprise a bank. It
// owns parsing, rendering, filters and the formats of locales. It must not know what a template's record, a
// delivery or a channel is, and does no I/O but loading a time zone through a function it is given.
//
// What it promises:
//   - Strict. A text with a syntax error, an unknown tag or filter, a wrong argument or an unknown part of the
//     user does not parse. A variable that has no value is an error when the text is rendered, wherever a value is
//     needed; a test ({% if name %}, ==, !=) and the filter default get by without. It never gives half a text.
//   - Bounded. A render has a budget of steps ([MaxSteps]), counted and not timed, so a text fails the same way on
//     every machine: a step is a node, an argument, a loop's turn, a filter, 64 bytes that a filter makes, 256 bytes
//     of JSON that are searched. All of them take 0.3 ms, the dearest (searches through 8 KiB of variables) 3 ms.
//     Values, output, nesting and the length of a source are bounded besides. There is no include, no file, no
//     recursion.
//   - Exact. What a text needs of the request ([Text.Needs]) and whether it differs from user to user
//     ([Text.PerUser]) follow from its tree, not from a guess. Numbers keep the digits that upstream gave.
//   - A parsed text is immutable; any number of goroutines render it.
//
// # Why not a library as it is
//
// Of the Go libraries one is kept: github.com/osteele/liquid (v1.9.2 of August 2026); the others are forks of it, young,
// or render a part. It was tried first, and what we promise can't be put around it: it compiles expressions to closures,
// so nothing can be read from a parsed text (which variables, which filters, is there any user.…), and a filter that does
// not exist is found when its branch is rendered; its switch for strict variables also refuses {% if name %} and default;
// an empty loop over (1..10000000) takes seconds, over more it takes all the time there is, and append in a loop all the
// memory, since nothing counts and no context is asked; "{{ name" without its end is printed as it is; 120.50 becomes
// 120.5 on its way through a float64; a filter's first argument can't be a named one, which plural needs; all variables
// must be decoded before the first is printed. What would be left of it is a regular expression that cuts tokens. So the
// language is read and run here, and osteele/liquid is what it is checked against: a test renders random texts of the
// common subset with both, and they agree (oracle_test.go, where the known differences are listed).
//
// golang.org/x/text knows digits, separators, grouping, percent, symbols of currencies, their decimals and the plural
// rules. It can't put a currency's symbol on the right side of the number (always before it), has no dates, takes
// Latin digits for ar-EG where CLDR has Arabic ones, and writes U+200E, U+200F and U+061C around signs. So: dates
// come from github.com/go-playground/locales (CLDR, v0.14.2 of September 2026; only the locales in locales.go are
// linked), the side of the symbol and the digits from CLDR's lists (locales.go, format.go), and direction marks are left
// out: a text has those that its author wrote and no others.
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
