from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('grants', '0005_pending_requests'),
    ]

    operations = [
        migrations.AddField(
            model_name='providerkey',
            name='shows_everything',
            field=models.BooleanField(default=False, help_text='For custom servers: their streams show all output as it is made, thinking and tool calls included.'),
        ),
    ]
