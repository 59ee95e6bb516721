from nex_merge.cli import main

main()
