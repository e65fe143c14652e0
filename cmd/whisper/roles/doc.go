// Package roles has the subcommands that run in production, one file each, and those that prepare it: topics and migrate.
//
// It owns the flags of each role and the life of its process (role.go): take the ports, wait for Kafka, check the topics,
// run the components, drain at the first signal. What a role does lives in its own package (consumers/intake, gateway, …);
// the Build functions make its components, here and in `whisper dev`.
//
// What 0 means. In a package's Config, 0 (or "", nil) always means the default that its Defaults function tells. A setting
// whose 0 would mean something else takes one of two forms: its default is 0 itself (gateway's MaxPerAddress, dispatch's
// WalkRecords: no bound), or a negative value means "not at all" (ReceiptHold, Leeway). The one exception is
// decide.Policy, which is taken whole: only a Policy in which nothing is set gets the defaults, so its Spread may be 0.
// A flag tells 0 from unset. A 0 that means nothing is refused (zeroes.go in cmd/whisper); a flag with the tag zero says what
// it means, and hands the negative value on.
//
// The other way was a pointer, or a type of its own, for each setting. It tells 0 from unset in Go as well, but each of
// some sixty fields would be wrapped wherever a Config is written and unwrapped wherever it is read, for three settings.
package roles
