// Package segment decides which users a broadcast is for, by an expression in CEL over a user's profile.
//
// [Compile] checks an expression and bounds its cost. Most expressions compare a few fields with constants. Those
// become closures over the encoded profile (fast.go), which allocate nothing. CEL's interpreter answers all others
// (cel.go). Both read of the attributes what the expression names, once (subject.go), and both count what that costs
// (cost.go). A property test holds them to the answers of CEL on attributes that were decoded as a whole;
// 'go test -bench Segment ./domain/segment' tells their times.
package segment
