package testkit

import (
	"fmt"
	"os"
	"runtime"
)

// Home is a loopback address of this process alone, for which SelfSignedTLS and an Authority certify servers. As with
// Host, no connection of another test gets a port there that was free, or is free again; Host gives no test this one.
func Home() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1"
	}
	pid := int64(os.Getpid())
	return fmt.Sprintf("127.%d.%d.251", 1+pid/250%250, 1+pid%250)
}
