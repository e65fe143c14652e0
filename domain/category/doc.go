// Package category is the rules for what is sent in a category: its channels, quiet hours, caps, digests and timing, as
// records of whisper.categories declare them. [Categories] finds the rules that hold for a category's name.
// What follows from the rules for one delivery is decided in package decide.
package category
