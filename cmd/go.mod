module github.com/buffstreams/watermill-buffstreams/cmd

go 1.25
