package measure

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
)

// Facts are what a figure must not be read without.
type Facts struct {
	CPU        string            `json:"cpu"`
	Cores      int               `json:"cores"` // GOMAXPROCS
	System     string            `json:"system"`
	FileSystem string            `json:"file_system"` // of the directory that is written to
	Go         string            `json:"go"`
	GOGC       string            `json:"gogc"`
	Load       string            `json:"load"` // average of the last minute, when the facts were gathered
	Modules    map[string]string `json:"modules"`
}

// Gather finds what it can; what the system does not tell stays "unknown". dir is where files are written, modules are
// the paths of those whose versions matter.
func Gather(dir string, modules ...string) Facts {
	f := Facts{
		CPU: field("/proc/cpuinfo", "model name"), Cores: runtime.GOMAXPROCS(0),
		System: runtime.GOOS + " " + firstWord("/proc/sys/kernel/osrelease"), FileSystem: fileSystem(dir),
		Go: runtime.Version(), GOGC: "100", Load: firstWord("/proc/loadavg"), Modules: versions(modules),
	}
	if gogc := os.Getenv("GOGC"); gogc != "" {
		f.GOGC = gogc
	}
	return f
}

const unknown = "unknown"

func versions(modules []string) map[string]string {
	found := map[string]string{}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return found
	}
	for _, dep := range info.Deps {
		for _, m := range modules {
			if dep.Path == m {
				found[m] = dep.Version
			}
		}
	}
	return found
}

func firstWord(file string) string {
	content, err := os.ReadFile(file)
	if words := strings.Fields(string(content)); err == nil && len(words) > 0 {
		return words[0]
	}
	return unknown
}

// field finds the first line "key : value" of a file.
func field(file, key string) string {
	content, _ := os.ReadFile(file)
	for line := range strings.Lines(string(content)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return unknown
}

// fileSystem finds the mount that dir is on, such as "ext4 on /dev/vda".
func fileSystem(dir string) string {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return unknown
	}
	defer func() { _ = file.Close() }()
	if dir, err = filepath.Abs(dir); err != nil {
		return unknown
	}
	best, found := -1, unknown
	for lines := bufio.NewScanner(file); lines.Scan(); {
		mount, kind, ok := strings.Cut(lines.Text(), " - ")
		at, what := strings.Fields(mount), strings.Fields(kind)
		if !ok || len(at) < 5 || len(what) < 2 || len(at[4]) < best || !within(dir, at[4]) {
			continue
		}
		best, found = len(at[4]), what[0]+" on "+what[1]
	}
	return found
}

func within(path, dir string) bool {
	return dir == "/" || path == dir || strings.HasPrefix(path, dir+"/")
}
