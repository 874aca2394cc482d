// Package settings gives flags their values from the environment and from a profile file, where the command line has
// none.
package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// prefix begins the names of the variables: --tls-ca is BUFFSTREAMS_TLS_CA.
const prefix = "BUFFSTREAMS_"

// tokenName is what a profile, and with the prefix the environment, calls the token. It is no flag: other users of the
// machine can read command lines.
const tokenName = "token"

// profileFlag names the profile.
const profileFlag = "profile"

// Register adds --profile to a root command.
func Register(root *cobra.Command) {
	root.PersistentFlags().String(profileFlag, "", "profile to take flags from: a file, or NAME for buffstreams/NAME.json in the configuration folder of the user")
}

// Variable is the name of the environment variable of a flag.
func Variable(flag string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Apply sets the flags of cmd that are not on the command line: from the environment, else from the profile. It returns
// the token that these have.
func Apply(cmd *cobra.Command) (token string, err error) {
	values, from, err := readProfile(cmd)
	if err != nil {
		return "", err
	}
	var errs []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "help" || f.Name == profileFlag {
			return
		}
		if value, ok := os.LookupEnv(Variable(f.Name)); ok {
			errs = append(errs, set(cmd, f.Name, Variable(f.Name), value))
			return
		}
		for i, value := range values[f.Name] {
			if _, isList := f.Value.(pflag.SliceValue); i > 0 && !isList {
				errs = append(errs, fmt.Errorf("%s: %s is no list", from, f.Name))
				return
			}
			errs = append(errs, set(cmd, f.Name, from, value))
		}
	})
	if token = os.Getenv(Variable(tokenName)); token == "" && len(values[tokenName]) > 0 {
		token = values[tokenName][0]
	}
	return token, errors.Join(errs...)
}

func set(cmd *cobra.Command, flag, from, value string) error {
	if err := cmd.Flags().Set(flag, value); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return nil
}

// readProfile returns the values of the profile by the name of their flag.
func readProfile(cmd *cobra.Command) (values map[string][]string, path string, err error) {
	name := os.Getenv(Variable(profileFlag))
	if f := cmd.Flags().Lookup(profileFlag); f != nil && f.Changed {
		name = f.Value.String()
	}
	if name == "" {
		return nil, "", nil
	}
	if path, err = locate(name); err != nil {
		return nil, "", err
	}
	text, err := os.ReadFile(path) //nolint:gosec // the user names it
	if err != nil {
		return nil, "", fmt.Errorf("profile %s: %w", name, err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, "", fmt.Errorf("profile %s is not one JSON object: %w", path, err)
	}
	known := flagsOf(cmd.Root())
	values = map[string][]string{}
	for key, value := range fields {
		if !known[key] && key != tokenName {
			return nil, "", fmt.Errorf("profile %s: no command has a flag %q", path, key)
		}
		if values[key], err = texts(value); err != nil {
			return nil, "", fmt.Errorf("profile %s: %s: %w", path, key, err)
		}
	}
	if len(values[tokenName]) > 0 {
		err = private(path)
	}
	return values, path, err
}

func locate(name string) (string, error) {
	if strings.ContainsRune(name, os.PathSeparator) || strings.HasSuffix(name, ".json") {
		return name, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("profile %s: %w", name, err)
	}
	return filepath.Join(dir, "buffstreams", name+".json"), nil
}

// private refuses a file with a secret that others can read.
func private(path string) error {
	info, err := os.Stat(path) //nolint:gosec // as above
	if err != nil {
		return err
	}
	const others = fs.FileMode(0o077)
	if info.Mode().Perm()&others != 0 {
		return fmt.Errorf("profile %s has a token, and others can read it (mode %v); chmod 600 it", path, info.Mode().Perm())
	}
	return nil
}

// texts are the forms that flags parse.
func texts(value any) ([]string, error) {
	switch v := value.(type) {
	case string:
		return []string{v}, nil
	case bool, float64:
		text, err := json.Marshal(v)
		return []string{string(text)}, err
	case []any:
		var all []string
		for _, one := range v {
			text, ok := one.(string)
			if !ok {
				return nil, errors.New("a list can only have texts")
			}
			all = append(all, text)
		}
		return all, nil
	}
	return nil, errors.New("use a text, a number, true, false, or a list of texts")
}

// flagsOf are the flags of a command and of all below it.
func flagsOf(cmd *cobra.Command) map[string]bool {
	all := map[string]bool{}
	add := func(f *pflag.Flag) { all[f.Name] = true }
	cmd.Flags().VisitAll(add)
	cmd.PersistentFlags().VisitAll(add)
	for _, child := range cmd.Commands() {
		for name := range flagsOf(child) {
			all[name] = true
		}
	}
	return all
}
