// Package interop holds tests in which programs and libraries that others
// wrote, unmodified, check logs that pgnotary wrote: Tessera's fsck reads a
// whole log over HTTP, torchwood reads entries and verifies proofs. It is a
// module of its own, so that their dependencies are none of the product's.
//
//	cd interop && go test ./...
package interop
