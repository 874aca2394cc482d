// Package clients tests the clients of other languages against this library and each other: processes that publish and
// subscribe, a network that cuts their connections, kills, and an account that must be exact. It needs python3 and
// node; a test says which is missing, and fails for it where CI is set.
package clients
