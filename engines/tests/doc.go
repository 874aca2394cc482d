// Package tests has one suite for all engines, against real servers, and the tests of the bridge.
package tests
