package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionInfo is what a binary knows of itself.
type versionInfo struct {
	Version  string `json:"version"` // of the module; (devel) if it was built in a checkout
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Protocol int    `json:"protocol"` // of the acked wire
}

func readVersion() versionInfo {
	v := versionInfo{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Protocol: 1}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

func (v versionInfo) String() string {
	revision := ""
	if v.Revision != "" {
		revision = " " + v.Revision
		if v.Modified {
			revision += " (modified)"
		}
	}
	return fmt.Sprintf("buffstreams %s%s, %s %s, protocol %d", v.Version, revision, v.Go, v.Platform, v.Protocol)
}

func newVersion() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "version", Short: "Print what this binary was built from", Args: cobra.NoArgs,
		Long: `Print the version of this binary, the revision that it was built from, and the version of the protocol that it speaks.

Exit code: 0.`,
		Example: "  buffstreams version --json",
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return json.NewEncoder(os.Stdout).Encode(readVersion())
			}
			_, err := fmt.Println(readVersion())
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one object")
	return cmd
}
