//go:build !race

package outbox

const sparse = false
