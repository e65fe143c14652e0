// Package category has the rules for what is sent in a category: channels, quiet hours, caps, digests and timing, as
// records of whisper.categories declare them. [Categories] finds the rules for the name of a category. Package decide
// applies them to a delivery.
package category
