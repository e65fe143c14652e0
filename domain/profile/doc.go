// Package profile is what Whisper knows of a user: locale, time zone, attributes, endpoints, preferences, quiet hours and
// the hours at which they read.
//
// A record of whisper.profiles is a [Patch]; [Apply] merges it. Deciding asks the encoded profile through a [View], which
// neither decodes nor allocates, since a broadcast looks at every user of a partition.
package profile
