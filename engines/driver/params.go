package driver

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Params are the parameters of a URL. Reading one that cannot be read is kept as the error that Err returns, so that a
// driver reads all and looks once.
type Params struct {
	engine string
	values url.Values
	err    error
}

// NewParams takes the parameters of an engine's URL. One that is given twice is an error.
func NewParams(engine string, values url.Values) Params {
	p := Params{engine: engine, values: values}
	for _, name := range p.Names("") {
		if len(values[name]) > 1 {
			p.Fail(name, "is given more than once")
		}
	}
	return p
}

// Names returns the names of the parameters that are given and begin with a prefix, in order.
func (p *Params) Names(prefix string) []string {
	var names []string
	for name := range p.values {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Given reports whether a parameter is in the URL.
func (p *Params) Given(name string) bool { return p.values.Has(name) }

// Fail keeps an error about a parameter, the first of all.
func (p *Params) Fail(name, why string) {
	if p.err == nil {
		p.err = &ParameterError{Engine: p.engine, Parameter: name, Err: errors.New(why)}
	}
}

// Err returns the first error.
func (p *Params) Err() error { return p.err }

// String returns the value of a parameter, or what it is without one.
func (p *Params) String(name, otherwise string) string {
	if !p.Given(name) {
		return otherwise
	}
	if p.values.Get(name) == "" {
		p.Fail(name, "is empty")
	}
	return p.values.Get(name)
}

// OneOf returns the value of a parameter that has a few, of which the first is the default.
func (p *Params) OneOf(name string, choices ...string) string {
	value := p.String(name, choices[0])
	if !slices.Contains(choices, value) {
		p.Fail(name, fmt.Sprintf("%.100q is not one of %s", value, strings.Join(choices, ", ")))
	}
	return value
}

// Int returns a number from minimum to maximum, or what it is without the parameter.
func (p *Params) Int(name string, otherwise, minimum, maximum int) int {
	if !p.Given(name) {
		return otherwise
	}
	n, err := strconv.Atoi(p.values.Get(name))
	if err != nil || n < minimum || n > maximum {
		p.Fail(name, fmt.Sprintf("%.100q is not a number from %d to %d", p.values.Get(name), minimum, maximum))
	}
	return n
}

// Bool returns true or false, or what it is without the parameter.
func (p *Params) Bool(name string, otherwise bool) bool {
	if !p.Given(name) {
		return otherwise
	}
	return p.OneOf(name, "true", "false") == "true"
}

// Duration returns a duration such as 1m30s that is not negative, or what it is without the parameter.
func (p *Params) Duration(name string, otherwise time.Duration) time.Duration {
	if !p.Given(name) {
		return otherwise
	}
	d, err := time.ParseDuration(p.values.Get(name))
	if err != nil || d < 0 {
		p.Fail(name, fmt.Sprintf("%.100q is not a duration such as 500ms", p.values.Get(name)))
	}
	return d
}

// ServerParameters are those of an engine with a server: create, which missing describes, its own ones, and how a
// client shows who it is.
func ServerParameters(missing string, own ...Parameter) []Parameter {
	all := append([]Parameter{{"create", "false: " + missing + " is an error; default true"}}, own...)
	return append(append(all, SecretParameters("password", "password of the URL's user")...), TLSParameters()...)
}

// SecretParameters are the two parameters that Secret reads.
func SecretParameters(name, help string) []Parameter {
	return []Parameter{
		{name + "_file", "file whose first line is the " + help},
		{name + "_env", "environment variable that holds the " + help},
	}
}

// Secret returns a secret from the file that name_file names, or the variable that name_env names, or else what the URL
// has.
func (p *Params) Secret(name, inURL string) string {
	file, env := name+"_file", name+"_env"
	switch {
	case p.Given(file) && p.Given(env):
		p.Fail(file, "and "+env+" exclude each other")
	case p.Given(file):
		content, err := os.ReadFile(p.String(file, ""))
		if err != nil {
			p.Fail(file, err.Error())
		}
		line, _, _ := strings.Cut(string(content), "\n")
		if line = strings.TrimSuffix(line, "\r"); line == "" {
			p.Fail(file, "the first line of the file is empty")
		}
		return line
	case p.Given(env):
		value := os.Getenv(p.String(env, ""))
		if value == "" {
			p.Fail(env, "the variable is not set, or empty")
		}
		return value
	}
	return inURL
}
