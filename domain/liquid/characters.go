package liquid

import (
	"unicode/utf8"

	"github.com/rivo/uniseg"
)

// A character is what a person sees as one: an extended grapheme cluster of Unicode. A family of emoji, a letter with
// its accents and a Thai syllable with its vowel are one each, so no filter cuts one apart. github.com/rivo/uniseg
// finds them. It has Unicode 15.0, which counts the letters of a Devanagari conjunct one by one.

// countingSteps is the cost of counting the characters of a text: some 0.2 µs for each code point beyond ASCII.
func countingSteps(s string) int {
	beyond := 0
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			beyond++
		}
	}
	return len(s)/bytesPerStep + beyond/countedBytes
}

// characters is the number of characters in a text.
func characters(s string) int {
	n := 0
	for s != "" {
		if plain(s) {
			s = s[1:]
		} else {
			s = s[first(s):]
		}
		n++
	}
	return n
}

// charactersEnd is where the first n characters of s end.
func charactersEnd(s string, n int) int {
	end := 0
	for ; n > 0 && end < len(s); n-- {
		if plain(s[end:]) {
			end++
		} else {
			end += first(s[end:])
		}
	}
	return end
}

// plain reports whether the first byte is a character by itself. Two bytes tell that for most text, at a fraction of
// the cost of uniseg.
func plain(s string) bool {
	return s[0] < utf8.RuneSelf && s[0] != '\r' && (len(s) == 1 || s[1] < utf8.RuneSelf)
}

func first(s string) int {
	cluster, _, _, _ := uniseg.FirstGraphemeClusterInString(s, -1)
	return len(cluster)
}
