// Package e2e tests the real program: real clients reach a real PostgreSQL through it, it is
// killed under load and run out of disk space, and what it recorded is compared
// with what the server says it did.
//
// The tests need what install.sh installs, and fail without it.
package e2e
