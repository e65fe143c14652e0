// Package roles has the subcommands that run in production, one file each, and those that prepare it: topics and migrate.
//
// It owns the flags of each role and the life of its process (role.go): take the ports, wait for Kafka, check the topics,
// run the components, drain at the first signal. What a role does lives in its own package (consumers/intake, gateway, …);
// the Build functions make its components, here and in `whisper dev`.
package roles
