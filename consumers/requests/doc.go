// Package requests takes the records of whisper.requests.{lane}: it parses a request, finds the version of its template,
// and writes what follows from it: one record for each recipient or, of a broadcast or command, for each user
// partition. What is wrong becomes a dead letter. A role gives it records, and publishers; it must not decide about a
// delivery, and knows nothing of consumer groups.
package requests
