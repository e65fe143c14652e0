package domain

import "strings"

const (
	// MaxCategoryBytes is how long a category's name may be.
	MaxCategoryBytes = 64
	// DefaultCategory is the category of a request that names none.
	DefaultCategory = "default"
)

// CategoryProblem returns what is wrong with a category, or "". Dots separate parts, so that a preference can be about
// a group of categories.
func CategoryProblem(category string) string {
	const allowed = "lower-case letters, digits, _ and -, in parts separated by dots, such as transactions.card"
	if len(category) > MaxCategoryBytes {
		return "is longer than 64 bytes"
	}
	for part := range strings.SplitSeq(category, ".") {
		if part == "" {
			return "has an empty part: " + allowed
		}
		for i := range len(part) {
			if c := part[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
				return "has a character that is not allowed: " + allowed
			}
		}
	}
	return ""
}
