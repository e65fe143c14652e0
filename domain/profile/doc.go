// Package profile is what Whisper knows of a user: locale, time zone, attributes, endpoints, preferences, quiet hours
// and the hours at which they read.
//
// A record of whisper.profiles is a [Patch]; [Apply] merges it. Decisions read the encoded profile through a [View],
// which neither decodes nor allocates, because a broadcast reads every user of a partition: a segment of three terms
// takes some 300 ns that way, and 9 µs and 63 allocations in CEL on decoded attributes ('go test -bench Segment
// ./domain/segment').
package profile
