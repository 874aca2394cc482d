// Package mutants proves the tests: it puts mistakes into the code, one at a time, and requires that a test notices
// each.
package mutants
