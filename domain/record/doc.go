// Package record reads what upstream writes: JSON whose problems are all told at once, in sentences made for the people
// who wrote the record, which end as the reason of a dead letter.
//
// A package that owns a kind of record (request, profile, template, category) steps through it with a [Cursor], asks
// [Fields] which member it is at, reads values with the methods of [Problems], and returns [Problems.Err]. It knows
// nothing of what a record means.
package record
