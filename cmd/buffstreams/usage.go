package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// guide makes cmd and all below it say how they are used when they are called wrong.
func guide(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; see '%s --help'", err, c.CommandPath())
	})
	args := cmd.Args
	cmd.Args = func(c *cobra.Command, given []string) error {
		if args == nil {
			args = cobra.NoArgs
		}
		err := args(c, given)
		switch {
		case err == nil:
			return nil
		case c.HasSubCommands():
			return fmt.Errorf("%w; see '%s --help'", err, c.CommandPath())
		}
		return fmt.Errorf("%w; usage: %s", err, c.UseLine())
	}
	if cmd.HasSubCommands() && !cmd.Runnable() { // else cobra answers whatever it was given with help, and 0
		cmd.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
	for _, child := range cmd.Commands() {
		guide(child)
	}
}

// newHelp is cobra's command help, but for an error where there is no such command.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Help about a command", Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err == nil && len(rest) > 0 {
				err = fmt.Errorf("unknown command %q for %q", rest[0], found.CommandPath())
			}
			if err != nil {
				return fmt.Errorf("%w; see '%s --help'", err, cmd.Root().Name())
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}

// refuseSecret refuses a URL with a password that is on the command line, as other users of the machine can read that.
// In the environment and in a profile it may stand.
func refuseSecret(flag, url string) error {
	_, rest, _ := strings.Cut(url, "://")
	authority := rest
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		authority = rest[:end]
	}
	at := strings.LastIndexByte(authority, '@')
	if at < 0 {
		return nil
	}
	user, password, _ := strings.Cut(authority[:at], ":")
	token := strings.HasPrefix(url, "nats") && !strings.Contains(url, "password_") && user != ""
	if password == "" && !token {
		return nil
	}
	for _, arg := range os.Args {
		if strings.Contains(arg, url) {
			return fmt.Errorf("%s has a secret, which other users of this machine can read; use password_file or password_env in the URL, %s", flag,
				"or give the URL in the environment or a profile")
		}
	}
	return nil
}
